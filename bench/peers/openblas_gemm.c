/* openblas_gemm: the rival of Ringtail's float32 matrix product. It answers
 * requests, one a line, so that rounds of both can alternate within one run:
 *
 *   config                     -> the library's build and the kernels it chose
 *   shape TA TB M N K THREADS  -> "ok" once operands are made and one product is done
 *   run REPS                   -> seconds that REPS products took, and of processor time
 *   at I                       -> element I of C
 *
 * TA and TB are 0 or 1; matrices are dense and row-major. Element i of an
 * operand is ((i*2654435761 mod 2^32) >> 8) / 2^24 - 0.5.
 */
#include <cblas.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static float *make(size_t n) {
	float *p = NULL;
	if (posix_memalign((void **)&p, 4096, n * sizeof *p) != 0) {
		fprintf(stderr, "openblas_gemm: no memory for %zu floats\n", n);
		exit(1);
	}
	for (size_t i = 0; i < n; i++)
		p[i] = (float)((uint32_t)((uint32_t)i * 2654435761u) >> 8) / 16777216.0f - 0.5f;
	return p;
}

static double now(clockid_t clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ta, tb, m, n, k, threads;
static float *a, *b, *c;

static void gemm(void) {
	cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
	            m, n, k, 1.0f, a, ta ? m : k, b, tb ? k : n, 0.0f, c, n);
}

int main(void) {
	char line[256];
	int reps;
	unsigned long i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		if (strncmp(line, "config", 6) == 0) {
			printf("%s; kernels: %s\n", openblas_get_config(), openblas_get_corename());
		} else if (sscanf(line, "shape %d %d %d %d %d %d", &ta, &tb, &m, &n, &k, &threads) == 6) {
			free(a);
			free(b);
			free(c);
			a = make((size_t)m * k);
			b = make((size_t)k * n);
			c = make((size_t)m * n);
			openblas_set_num_threads(threads);
			gemm();
			puts("ok");
		} else if (c && sscanf(line, "run %d", &reps) == 1) {
			double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
			for (int r = 0; r < reps; r++)
				gemm();
			printf("%.9f %.9f\n", now(CLOCK_MONOTONIC) - start, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
		} else if (c && sscanf(line, "at %lu", &i) == 1 && i < (size_t)m * n) {
			printf("%.9g\n", c[i]);
		} else {
			printf("error: %s", line);
		}
	}
	return 0;
}
