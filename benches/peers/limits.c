/*
 * What the machine itself can do between two of its cores, as one JSON object:
 *   exchange_ns   both threads write a cache line and wait for the other's: no small all-reduce can take less
 *   touched_gbs   bytes touched a second by c[i] = a[i] + b[i] on both cores, stored past the caches: a large all-reduce
 *                 of S bytes between two ranks reads 2 S and writes 2 S
 *
 *     cc -O3 -mavx2 -pthread -o limits limits.c && ./limits 0 1
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCHES = 100, EXCHANGES = 1000, PASSES = 8 };
static const size_t FLOATS = 16u << 20;

struct line {
    _Alignas(128) _Atomic unsigned long value;
};
static struct line lines[2];
static float *a, *b, *sums;
static int cores[2];
static pthread_barrier_t both;
static double samples[BATCHES], seconds[PASSES];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int ascending(const void *left, const void *right)
{
    double x = *(const double *)left, y = *(const double *)right;
    return (x > y) - (x < y);
}

static double median(double *of, size_t n)
{
    qsort(of, n, sizeof *of, ascending);
    return of[n / 2];
}

static void *side(void *argument)
{
    long me = (long)argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cores[me], &set);
    sched_setaffinity(0, sizeof set, &set);

    unsigned long number = 0;
    for (int batch = 0; batch < BATCHES; batch++) {
        double began = now();
        for (int i = 0; i < EXCHANGES; i++) {
            atomic_store_explicit(&lines[me].value, ++number, memory_order_release);
            while (atomic_load_explicit(&lines[1 - me].value, memory_order_acquire) < number)
                ;
        }
        if (me == 0)
            samples[batch] = (now() - began) / EXCHANGES;
    }

    size_t half = FLOATS / 2, from = me * half;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&both);
        double began = now();
        for (size_t i = from; i < from + half; i += 8)
            _mm256_stream_ps(sums + i, _mm256_add_ps(_mm256_load_ps(a + i), _mm256_load_ps(b + i)));
        _mm_sfence();
        pthread_barrier_wait(&both);
        if (me == 0)
            seconds[pass] = now() - began;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    cores[0] = argc > 1 ? atoi(argv[1]) : 0;
    cores[1] = argc > 2 ? atoi(argv[2]) : 1;
    size_t bytes = FLOATS * sizeof(float);
    a = aligned_alloc(4096, bytes), b = aligned_alloc(4096, bytes), sums = aligned_alloc(4096, bytes);
    if (!a || !b || !sums)
        return 1;
    for (size_t i = 0; i < FLOATS; i++)
        a[i] = (float)(i % 7), b[i] = 1, sums[i] = 0;
    pthread_barrier_init(&both, NULL, 2);
    pthread_t threads[2];
    for (long i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, side, (void *)i);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    printf("{\"exchange_ns\": %.1f, \"touched_gbs\": %.2f}\n", median(samples, BATCHES) * 1e9,
           3.0 * bytes / median(seconds, PASSES) * 1e-9);
}
