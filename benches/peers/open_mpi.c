/*
 * Times MPI_Allreduce the way `sapwood bench all-reduce` times ours, so that the two can be set side by side.
 *
 * For each size: a number of warm-up calls; then single calls, each after a barrier, each timed on every rank, the
 * slowest rank's time counting; then, up to 8 KiB, 20 batches of 1,000 calls back to back (a barrier's skew is as
 * long as a small call itself), again the slowest rank's time, and the median of the batches. Both with a separate
 * result ("out") and in place ("in"). Every element of the last result is checked.
 *
 * Prints one JSON object a line; times are microseconds.
 *
 *     mpicc -O3 -o open_mpi open_mpi.c
 *     mpirun -n 2 ./open_mpi -b 8 -e 33554432 -f 4 -n 100 -w 20
 */
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 20, CALLS_IN_A_BATCH = 1000, LARGEST_BATCHED = 8192, PAGE = 4096 };

static int rank, ranks;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void all_reduce(const float *input, float *output, size_t count, bool in_place)
{
    MPI_Allreduce(in_place ? MPI_IN_PLACE : input, output, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

/* Small whole numbers: their sum is exact in any order. */
static float contribution(int of_rank, size_t index)
{
    return (float)((of_rank + 1) * (int)(index % 11));
}

/* The slowest rank's time of each call, ascending; meaningful on rank 0. */
static void slowest_sorted(const double *mine, double *slowest, int n)
{
    MPI_Reduce(mine, slowest, n, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (rank == 0)
        qsort(slowest, n, sizeof *slowest, ascending);
}

static void measure(size_t bytes, int iterations, int warmup, const float *input, float *output, bool in_place)
{
    size_t count = bytes / sizeof(float);
    double *mine = malloc(iterations * sizeof(double)), *slowest = malloc(iterations * sizeof(double));
    double batch[BATCHES], slowest_batch[BATCHES];
    long wrong = 0, wrong_anywhere = 0;

    /* In place, sums of sums would overflow to infinity, and arithmetic on those has the same speed; zeros stay. */
    memset(output, 0, bytes);
    for (int i = 0; i < warmup; i++)
        all_reduce(input, output, count, in_place);
    for (int i = 0; i < iterations; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = now_us();
        all_reduce(input, output, count, in_place);
        mine[i] = now_us() - start;
    }
    slowest_sorted(mine, slowest, iterations);

    if (bytes <= LARGEST_BATCHED) {
        for (int k = 0; k < BATCHES; k++) {
            MPI_Barrier(MPI_COMM_WORLD);
            double start = now_us();
            for (int i = 0; i < CALLS_IN_A_BATCH; i++)
                all_reduce(input, output, count, in_place);
            batch[k] = (now_us() - start) / CALLS_IN_A_BATCH;
        }
        slowest_sorted(batch, slowest_batch, BATCHES);
    }

    if (in_place)
        for (size_t i = 0; i < count; i++)
            output[i] = contribution(rank, i);
    else
        memset(output, 0xff, bytes); /* NaN: an element that nobody writes is found */
    all_reduce(input, output, count, in_place);
    for (size_t i = 0; i < count; i++)
        wrong += output[i] != (float)(ranks * (ranks + 1) / 2 * (int)(i % 11));
    MPI_Reduce(&wrong, &wrong_anywhere, 1, MPI_LONG, MPI_SUM, 0, MPI_COMM_WORLD);

    if (rank == 0) {
        printf("{\"size\": %zu, \"in_place\": %s, \"iterations\": %d, \"min\": %.3f, \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, ",
               bytes, in_place ? "true" : "false", iterations, slowest[0], slowest[iterations / 2],
               slowest[iterations * 99 / 100], slowest[iterations - 1]);
        if (bytes <= LARGEST_BATCHED)
            printf("\"batch\": %.4f, ", slowest_batch[BATCHES / 2]);
        else
            printf("\"batch\": null, ");
        printf("\"nwrong\": %ld}\n", wrong_anywhere);
        fflush(stdout);
    }
    free(mine);
    free(slowest);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);

    size_t smallest = 8, largest = 32u << 20, factor = 4;
    int iterations = 100, warmup = 20;
    for (int option; (option = getopt(argc, argv, "b:e:f:n:w:")) != -1;) {
        switch (option) {
        case 'b': smallest = strtoull(optarg, NULL, 10); break;
        case 'e': largest = strtoull(optarg, NULL, 10); break;
        case 'f': factor = strtoull(optarg, NULL, 10); break;
        case 'n': iterations = atoi(optarg); break;
        case 'w': warmup = atoi(optarg); break;
        default: MPI_Abort(MPI_COMM_WORLD, 2);
        }
    }
    if (smallest < sizeof(float) || largest < smallest || factor < 2 || iterations < 1 || warmup < 0) {
        if (rank == 0)
            fprintf(stderr, "open_mpi: -b at least 4, -e at least -b, -f at least 2, -n at least 1, -w at least 0\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }

    size_t room = (largest + PAGE - 1) / PAGE * PAGE;
    float *input = aligned_alloc(PAGE, room), *output = aligned_alloc(PAGE, room);
    if (!input || !output)
        MPI_Abort(MPI_COMM_WORLD, 1);
    for (size_t i = 0; i < largest / sizeof(float); i++)
        input[i] = contribution(rank, i);
    for (size_t bytes = smallest; bytes <= largest; bytes *= factor) {
        measure(bytes, iterations, warmup, input, output, false);
        measure(bytes, iterations, warmup, input, output, true);
    }
    free(input);
    free(output);
    MPI_Finalize();
}
