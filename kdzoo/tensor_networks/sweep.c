/* Sweeps along a chain of cores, with the samples in the lanes of the vectors; compiled with REAL = float or double.
 *
 * A state is [dimension][samples], the values phi of a site's features are [d][samples], a core is [d][n_in][n_out]
 * and the next state is out[r] = sum over k and l of phi[k] in[l] core[k][l][r]. The number of samples is a multiple
 * of WIDTH; pointers are aligned to vectors. Nothing of size samples x n_in x n_out is ever stored: `work` holds the
 * products of the features with one state.
 */
#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64 /* of a vector */
#define TILE 8   /* rows of a tile: 8 x BLOCK accumulators are half of the 32 registers; 6 x BLOCK fit into 16 */
#elif defined(__AVX__)
#define BYTES 32
#define TILE 6
#else
#define BYTES 16
#define TILE 6
#endif
#define LANES ((long)(BYTES / sizeof(REAL)))
#define BLOCK 2                 /* vectors that a tile holds beside each other */
#define WIDTH (BLOCK * LANES)   /* samples of a tile */
#define ROWS 3                  /* a tile of a core's gradient is ROWS x COLUMNS */
#define COLUMNS 4
typedef REAL vec __attribute__((vector_size(BYTES)));
typedef long long integer;

#define UNROLL(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)
#define KEEP() __asm__("" ::: "memory") /* what was loaded stays in its register: no second load in its place */

int sweep_width(void) { return WIDTH; }

/* Rows of samples that `work` needs: its products, and what a tile reads behind them. */
int sweep_work_rows(int products) { return products + COLUMNS; }

/* The size of the next of the pieces that `left` is cut into: as equal as possible and none above `most`, so that no
 * small rest is computed slowly. */
static inline long piece(long left, long most) {
    long pieces = (left + most - 1) / most;
    return (left + pieces - 1) / pieces;
}

/* out[r] = sum over k < d and c < count of in[k][c] * matrix[k * step_k + c * step_c + r * step_r], for N values of r
 * and BLOCK vectors, kept in registers. */
#define DEFINE_TILE(N)                                                                                                 \
    static void tile_##N(const vec *in, long d, long count, const REAL *matrix, long step_k, long step_c, long step_r, \
                         vec *out, long vectors) {                                                                     \
        vec acc[N][BLOCK];                                                                                             \
        UNROLL(r, N) UNROLL(b, BLOCK) acc[r][b] = (vec){0};                                                            \
        for (long k = 0; k < d; k++, matrix += step_k)                                                                 \
            for (long c = 0; c < count; c++, in += vectors)                                                            \
                UNROLL(r, N) UNROLL(b, BLOCK) acc[r][b] += in[b] * matrix[c * step_c + r * step_r];                    \
        UNROLL(r, N) UNROLL(b, BLOCK) out[r * vectors + b] = acc[r][b];                                                \
    }
DEFINE_TILE(1) DEFINE_TILE(2) DEFINE_TILE(3) DEFINE_TILE(4) DEFINE_TILE(5) DEFINE_TILE(6) DEFINE_TILE(7) DEFINE_TILE(8)
static void (*const tile[])(const vec *, long, long, const REAL *, long, long, long, vec *, long) = {
    0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8};

/* The same for all r < n and all vectors, one tile after the other. */
static void multiply(const vec *in, long d, long count, const REAL *matrix, long step_k, long step_c, long step_r,
                     vec *out, long n, long vectors) {
    for (long b = 0; b < vectors; b += BLOCK)
        for (long r = 0, now; r < n; r += now) {
            now = piece(n - r, TILE);
            tile[now](in + b, d, count, matrix + r * step_r, step_k, step_c, step_r, out + r * vectors + b, vectors);
        }
}

/* out[k][r] = phi[k] * state[r] */
static void spread(const vec *phi, const vec *state, vec *out, long d, long n, long vectors) {
    for (long k = 0; k < d; k++)
        for (long r = 0; r < n; r++)
            for (long b = 0; b < vectors; b++)
                out[(k * n + r) * vectors + b] = phi[k * vectors + b] * state[r * vectors + b];
}

/* before[l] = sum over k of phi[k] * product[k][l]; gradient[k] += sum over l of in[l] * product[k][l] */
static void gather(const vec *phi, const vec *in, const vec *product, vec *before, vec *gradient, long d, long n,
                   long vectors) {
    memset(before, 0, (size_t)(n * vectors) * sizeof(vec));
    for (long k = 0; k < d; k++)
        for (long l = 0; l < n; l++)
            for (long b = 0; b < vectors; b++) {
                before[l * vectors + b] += phi[k * vectors + b] * product[(k * n + l) * vectors + b];
                gradient[k * vectors + b] += in[l * vectors + b] * product[(k * n + l) * vectors + b];
            }
}

typedef REAL part __attribute__((vector_size(16)));
typedef double halves __attribute__((vector_size(16)));
#define HALF ((int)(8 / sizeof(REAL)))

/* The lanes of a vector, summed to 16 bytes. */
static inline part folded(vec v) {
    part parts[BYTES / 16];
    memcpy(parts, &v, sizeof v);
    for (int i = 1; i < BYTES / 16; i++) parts[0] += parts[i];
    return parts[0];
}

/* out[r] = sum of the lanes of v[r], for COLUMNS vectors: halves of two vectors side by side, then the rest. */
static inline void lane_sums(const vec *v, REAL *out) {
    REAL rest[COLUMNS * HALF];
    UNROLL(i, COLUMNS / 2) {
        halves a = (halves)folded(v[2 * i]), b = (halves)folded(v[2 * i + 1]);
        part sum = (part)(halves){a[0], b[0]} + (part)(halves){a[1], b[1]};
        memcpy(rest + 2 * i * HALF, &sum, sizeof sum);
    }
    UNROLL(r, COLUMNS) {
        out[r] = rest[r * HALF];
        for (int j = 1; j < HALF; j++) out[r] += rest[r * HALF + j];
    }
}

/* out[l][r] = sum over the samples of in[l] * after[r], for N values of l, kept in registers. */
#define DEFINE_DOTS(N)                                                                                                 \
    static void dots_##N(const vec *in, const vec *after, long vectors, REAL (*out)[COLUMNS]) {                        \
        vec acc[N][COLUMNS], x[N];                                                                                     \
        UNROLL(l, N) UNROLL(r, COLUMNS) acc[l][r] = (vec){0};                                                          \
        for (long b = 0; b < vectors; b++) {                                                                           \
            UNROLL(l, N) x[l] = in[l * vectors + b];                                                                   \
            UNROLL(r, COLUMNS) {                                                                                       \
                vec y = after[r * vectors + b];                                                                        \
                KEEP();                                                                                                \
                UNROLL(l, N) acc[l][r] += x[l] * y;                                                                    \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL(l, N) lane_sums(acc[l], out[l]);                                                                        \
    }
DEFINE_DOTS(1) DEFINE_DOTS(2) DEFINE_DOTS(3)
static void (*const dots[])(const vec *, const vec *, long, REAL (*)[COLUMNS]) = {0, dots_1, dots_2, dots_3};

/* gradient[k][l][r] = sum over the samples of in[l] * after[k][r]; reads COLUMNS rows at a time. */
static void core_gradient(const vec *in, const vec *after, REAL *gradient, long d, long n_in, long n_out,
                          long vectors) {
    for (long l = 0, now; l < n_in; l += now) {
        now = piece(n_in - l, ROWS);
        for (long k = 0; k < d; k++)
            for (long r = 0; r < n_out; r += COLUMNS) {
                REAL sums[ROWS][COLUMNS], *to = gradient + (k * n_in + l) * n_out + r;
                dots[now](in + l * vectors, after + (k * n_out + r) * vectors, vectors, sums);
                for (long i = 0; i < now; i++)
                    for (long j = 0; j < COLUMNS && r + j < n_out; j++) to[i * n_out + j] = sums[i][j];
            }
    }
}

/* Divide the state of every sample by a power of two that makes its largest value about 1, which is exact; states that
 * are 0 or not finite are left as they are. */
static void rescale(REAL *state, REAL *scale, REAL *log2_scale, long dimension, long samples) {
    for (long i = 0; i < samples; i++) scale[i] = 0;
    for (long l = 0; l < dimension; l++)
        for (long i = 0; i < samples; i++) {
            REAL size = state[l * samples + i] < 0 ? -state[l * samples + i] : state[l * samples + i];
            scale[i] = size > scale[i] ? size : scale[i];
        }
    for (long i = 0; i < samples; i++) {
        int exponent = 0;
        if (scale[i] > 0 && isfinite(scale[i])) frexp((double)scale[i], &exponent);
        scale[i] = (REAL)ldexp(1.0, -exponent);
        log2_scale[i] += (REAL)exponent;
    }
    for (long l = 0; l < dimension; l++)
        for (long i = 0; i < samples; i++) state[l * samples + i] *= scale[i];
}

/* One side of a chain: the positions of its sites and the offsets of its cores are those of layout.py. Every second state
 * is kept, and the last one; state_at is -1 of the others, which the backward pass computes again from the one before. */
typedef struct {
    integer sites;
    const integer *dims, *site_at, *core_at, *state_at;
} side;

/* Compute the state after site i from the one before it. */
static void advance(const side *s, long i, long d, long vectors, const REAL *phi, const REAL *cores, const REAL *in,
                    REAL *out, REAL *work) {
    long n_in = s->dims[i], n_out = s->dims[i + 1];
    spread((const vec *)phi + s->site_at[i] * d * vectors, (const vec *)in, (vec *)work, d, n_in, vectors);
    multiply((const vec *)work, 1, d * n_in, cores + s->core_at[i], 0, n_out, 1, (vec *)out, n_out, vectors);
}

/* room: a state, of the largest bond. */
static void forward(const side *s, long d, long samples, long every, const REAL *phi, const REAL *cores, REAL *states,
                    REAL *scales, REAL *log2_scale, REAL *work, REAL *room) {
    const REAL *in = states + s->state_at[0] * samples;
    for (long i = 0; i < s->sites; i++) {
        REAL *out = s->state_at[i + 1] < 0 ? room : states + s->state_at[i + 1] * samples;
        advance(s, i, d, samples / LANES, phi, cores, in, out, work);
        if ((i + 1) % every == 0) rescale(out, scales + i / every * samples, log2_scale, s->dims[i + 1], samples);
        in = out;
    }
}

/* room: three states of the largest bond, the first of which holds the gradient of the last state and, at the end, that
 * of the first. */
static void backward(const side *s, long d, long samples, long every, const REAL *phi, const REAL *cores,
                     const REAL *states, const REAL *scales, REAL *work, REAL *room, long largest, REAL *core_gradients,
                     REAL *phi_gradients) {
    REAL *after = room, *before = room + largest * samples, *again = before + largest * samples;
    long vectors = samples / LANES;
    for (long i = s->sites - 1; i >= 0; i--) {
        const REAL *in = again;
        const vec *here = (const vec *)phi + s->site_at[i] * d * vectors;
        const REAL *core = cores + s->core_at[i];
        long n_in = s->dims[i], n_out = s->dims[i + 1];
        if (s->state_at[i] < 0)
            advance(s, i - 1, d, vectors, phi, cores, states + s->state_at[i - 1] * samples, again, work);
        else
            in = states + s->state_at[i] * samples;
        if ((i + 1) % every == 0)
            for (long r = 0; r < n_out; r++)
                for (long j = 0; j < samples; j++) after[r * samples + j] *= scales[i / every * samples + j];
        if (phi_gradients) {
            for (long k = 0; k < d; k++)
                multiply((const vec *)after, 1, n_out, core + k * n_in * n_out, 0, 1, n_out,
                         (vec *)work + k * n_in * vectors, n_in, vectors);
            gather(here, (const vec *)in, (const vec *)work, (vec *)before,
                   (vec *)phi_gradients + s->site_at[i] * d * vectors, d, n_in, vectors);
        }
        spread(here, (const vec *)after, (vec *)work, d, n_out, vectors);
        core_gradient((const vec *)in, (const vec *)work, core_gradients + s->core_at[i], d, n_in, n_out, vectors);
        if (!phi_gradients)
            multiply((const vec *)work, d, n_out, core, n_in * n_out, 1, n_out, (vec *)before, n_in, vectors);
        REAL *swap = after;
        after = before;
        before = swap;
    }
    if (after != room) memcpy(room, after, (size_t)(s->dims[0] * samples) * sizeof(REAL));
}

/* Both sides, at once if there are two threads: those of OpenMP, which torch has started already. In an array of both
 * sides, that of the right one begins after `step` numbers. */
#define BOTH(call)                                                                                                     \
    if (threads == 1) {                                                                                                \
        for (long i = 0; i < 2; i++) call;                                                                             \
    } else {                                                                                                           \
        _Pragma("omp parallel for num_threads(2) schedule(static)") for (long i = 0; i < 2; i++) call;                 \
    }

void sweep_forward(integer threads, const side *sides, integer d, integer samples, integer every, const REAL *phi,
                   const REAL *cores, REAL *states, REAL *scales, integer scales_step, REAL *work, integer work_step,
                   REAL *room, integer room_step, REAL *log2_scale) {
    BOTH(forward(sides + i, d, samples, every, phi, cores, states, scales + i * scales_step, log2_scale + i * samples,
                 work + i * work_step, room + i * room_step))
}

void sweep_backward(integer threads, const side *sides, integer d, integer samples, integer every, const REAL *phi,
                    const REAL *cores, const REAL *states, const REAL *scales, integer scales_step, REAL *work,
                    integer work_step, REAL *room, integer room_step, integer largest, REAL *core_gradients,
                    REAL *phi_gradients) {
    BOTH(backward(sides + i, d, samples, every, phi, cores, states, scales + i * scales_step, work + i * work_step,
                  room + i * room_step, largest, core_gradients, phi_gradients))
}
