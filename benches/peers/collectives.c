// Times one collective of an MPI library over a sweep of sizes, in the way of `sapwood bench`: a barrier, one call, the
// slowest rank's time; and up to 8 KiB the time of one call in back-to-back batches of 1,000 (median of 20, slowest
// rank). Sizes are those of the longest buffer of a rank, as nccl-tests counts them. Results are checked.
//
// Build: mpicc -O3 -o collectives collectives.c
// Run:   mpirun -n 2 ./collectives all-gather|reduce-scatter|broadcast|all-to-all|all-reduce|barrier [min] [max]
//        one row a size: bytes, p50 in us, batch in us (0 where there is none)
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 1000, BATCHES = 20, SMALL = 8192 };

static const char *what;
static int rank, ranks, part;
static float *in, *out;

static void call(void) {
  if (!strcmp(what, "all-gather")) MPI_Allgather(in, part, MPI_FLOAT, out, part, MPI_FLOAT, MPI_COMM_WORLD);
  else if (!strcmp(what, "reduce-scatter")) MPI_Reduce_scatter_block(in, out, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  else if (!strcmp(what, "broadcast")) MPI_Bcast(rank == 0 ? in : out, part, MPI_FLOAT, 0, MPI_COMM_WORLD);
  else if (!strcmp(what, "all-to-all")) MPI_Alltoall(in, part, MPI_FLOAT, out, part, MPI_FLOAT, MPI_COMM_WORLD);
  else if (!strcmp(what, "all-reduce")) MPI_Allreduce(in, out, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  else MPI_Barrier(MPI_COMM_WORLD);
}

static float value(int from, size_t index) { return (float)((index * 7 + (size_t)from * 13) % 101); }

static int is_wrong(int has_parts) {
  size_t count = !strcmp(what, "all-gather") || !strcmp(what, "all-to-all") ? (size_t)part * ranks : (size_t)part;
  if (!strcmp(what, "barrier") || (!strcmp(what, "broadcast") && rank == 0)) return 0;
  for (size_t i = 0; i < count; i++) {
    float wanted = 0;
    if (!strcmp(what, "all-gather")) wanted = value((int)(i / part), i % part);
    else if (!strcmp(what, "all-to-all")) wanted = value((int)(i / part), (size_t)rank * part + i % part);
    else if (!strcmp(what, "broadcast")) wanted = value(0, i);
    else for (int r = 0; r < ranks; r++) wanted += value(r, has_parts ? (size_t)rank * part + i : i);
    if (out[i] != wanted) return 1;
  }
  return 0;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median_of_slowest(double *times, int count) {
  double *most = malloc(count * sizeof *most);
  MPI_Reduce(times, most, count, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  qsort(most, count, sizeof *most, ascending);
  double median = most[count / 2];
  free(most);
  return median * 1e6;
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  what = argc > 1 ? argv[1] : "all-reduce";
  size_t least = argc > 2 ? strtoull(argv[2], 0, 10) : 8, most = argc > 3 ? strtoull(argv[3], 0, 10) : 8 << 20;
  if (!strcmp(what, "barrier")) most = least;
  int has_parts = strcmp(what, "broadcast") && strcmp(what, "all-reduce") && strcmp(what, "barrier");
  size_t bytes = most + 4096 * (size_t)ranks;
  in = aligned_alloc(4096, bytes / 4096 * 4096 + 4096);
  out = aligned_alloc(4096, bytes / 4096 * 4096 + 4096);
  for (size_t i = 0; i < bytes / 4; i++) { in[i] = value(rank, i); out[i] = -1; }
  int wrong = 0;
  for (size_t size = least; size <= most; size *= 4) {
    size_t count = size / sizeof(float);
    part = (int)(has_parts ? (count / ranks ? count / ranks : 1) : count);
    int calls = size <= 16384 ? 2000 : size <= (1 << 20) ? 400 : 60;
    double *times = malloc(calls * sizeof *times), batches[BATCHES], batch = 0;
    for (int i = 0; i < calls / 5 + 2; i++) call();
    for (int i = 0; i < calls; i++) {
      MPI_Barrier(MPI_COMM_WORLD);
      double start = MPI_Wtime();
      call();
      times[i] = MPI_Wtime() - start;
    }
    double p50 = median_of_slowest(times, calls);
    if (size <= SMALL) {
      for (int k = 0; k < BATCHES; k++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        for (int i = 0; i < BATCH; i++) call();
        batches[k] = (MPI_Wtime() - start) / BATCH;
      }
      batch = median_of_slowest(batches, BATCHES);
    }
    wrong |= is_wrong(has_parts);
    if (rank == 0) printf("%zu %.3f %.3f\n", (size_t)part * (has_parts ? ranks : 1) * sizeof(float), p50, batch);
    free(times);
  }
  MPI_Allreduce(MPI_IN_PLACE, &wrong, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (wrong && rank == 0) fprintf(stderr, "%s: wrong elements\n", what);
  MPI_Finalize();
  return wrong;
}
