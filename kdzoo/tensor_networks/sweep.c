/* Sweeps along a chain of cores, the samples in the lanes of the vectors; compiled with REAL = float or double.
 *
 * A state is [dimension][samples], the values phi of a site's features are [d][samples], a core is [d][n_in][n_out]
 * and the next state is out[r] = sum over k and l of phi[k] in[l] core[k][l][r]. The number of samples is a multiple
 * of WIDTH; pointers are aligned to vectors. Nothing of size samples x n_in x n_out is ever stored.
 */
#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#define TILE 8
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
typedef REAL vec __attribute__((vector_size(BYTES)));
typedef long long integer;

long sweep_width(void) { return WIDTH; }

/* acc[r] = sum over c < count of in[c] * matrix[c * step_c + r * step_r], for N values of r, kept in registers. */
#define DEFINE_TILE(N)                                                                                                 \
    static inline void tile_##N(const vec *in, long step_in, long count, const REAL *matrix, long step_c, long step_r, \
                                vec (*out)[BLOCK]) {                                                                   \
        vec acc[N][BLOCK];                                                                                             \
        memset(acc, 0, sizeof acc);                                                                                    \
        for (long c = 0; c < count; c++)                                                                               \
            _Pragma("GCC unroll 8") for (int r = 0; r < N; r++)                                                        \
                for (int b = 0; b < BLOCK; b++) acc[r][b] += in[c * step_in + b] * matrix[c * step_c + r * step_r];    \
        memcpy(out, acc, sizeof acc);                                                                                  \
    }
DEFINE_TILE(1) DEFINE_TILE(2) DEFINE_TILE(3) DEFINE_TILE(4) DEFINE_TILE(5) DEFINE_TILE(6) DEFINE_TILE(7) DEFINE_TILE(8)

static inline void tile(int n, const vec *in, long step_in, long count, const REAL *matrix, long step_c, long step_r,
                        vec (*out)[BLOCK]) {
    switch (n) {
        case 8: tile_8(in, step_in, count, matrix, step_c, step_r, out); break;
        case 7: tile_7(in, step_in, count, matrix, step_c, step_r, out); break;
        case 6: tile_6(in, step_in, count, matrix, step_c, step_r, out); break;
        case 5: tile_5(in, step_in, count, matrix, step_c, step_r, out); break;
        case 4: tile_4(in, step_in, count, matrix, step_c, step_r, out); break;
        case 3: tile_3(in, step_in, count, matrix, step_c, step_r, out); break;
        case 2: tile_2(in, step_in, count, matrix, step_c, step_r, out); break;
        default: tile_1(in, step_in, count, matrix, step_c, step_r, out);
    }
}

static inline long least(long a, long b) { return a < b ? a : b; }

static void next_state(const vec *in, const vec *phi, const REAL *core, vec *out, long d, long n_in, long n_out,
                       long vectors) {
    for (long b = 0; b < vectors; b += BLOCK)
        for (long r = 0; r < n_out; r += TILE) {
            int n = (int)least(TILE, n_out - r);
            vec product[TILE][BLOCK], sum[TILE][BLOCK];
            memset(sum, 0, sizeof sum);
            for (long k = 0; k < d; k++) {
                tile(n, in + b, vectors, n_in, core + k * n_in * n_out + r, n_out, 1, product);
                for (int i = 0; i < n; i++)
                    for (int j = 0; j < BLOCK; j++) sum[i][j] += product[i][j] * phi[k * vectors + b + j];
            }
            for (int i = 0; i < n; i++) memcpy(out + (r + i) * vectors + b, sum[i], sizeof sum[i]);
        }
}

/* Gradient of the state before a site from that of the state after it; adds to that of the features if asked. */
static void previous_gradient(const vec *in, const vec *phi, const REAL *core, const vec *after, vec *before,
                              vec *phi_gradient, long d, long n_in, long n_out, long vectors) {
    for (long b = 0; b < vectors; b += BLOCK)
        for (long l = 0; l < n_in; l += TILE) {
            int n = (int)least(TILE, n_in - l);
            vec product[TILE][BLOCK], sum[TILE][BLOCK];
            memset(sum, 0, sizeof sum);
            for (long k = 0; k < d; k++) {
                tile(n, after + b, vectors, n_out, core + (k * n_in + l) * n_out, 1, n_out, product);
                for (int i = 0; i < n; i++)
                    for (int j = 0; j < BLOCK; j++) {
                        sum[i][j] += product[i][j] * phi[k * vectors + b + j];
                        if (phi_gradient)
                            phi_gradient[k * vectors + b + j] += product[i][j] * in[(l + i) * vectors + b + j];
                    }
            }
            for (int i = 0; i < n; i++) memcpy(before + (l + i) * vectors + b, sum[i], sizeof sum[i]);
        }
}

/* Write phi[k] * after[r] to turned[sample][k * n_out + r]; then core gradient = in (turned), lanes over (k, r). */
static void core_gradient(const REAL *in, const REAL *phi, const REAL *after, REAL *gradient, REAL *turned, long d,
                          long n_in, long n_out, long samples) {
    long columns = d * n_out, row = (columns + WIDTH - 1) / WIDTH * WIDTH;
    for (long k = 0; k < d; k++)
        for (long b = 0; b < samples; b += LANES)
            for (long r = 0; r < n_out; r++)
                for (long i = b; i < b + LANES; i++)
                    turned[i * row + k * n_out + r] = phi[k * samples + i] * after[r * samples + i];
    for (long c = 0; c < columns; c += WIDTH)
        for (long l = 0; l < n_in; l += TILE) {
            int n = (int)least(TILE, n_in - l);
            vec product[TILE][BLOCK];
            tile(n, (const vec *)(turned + c), row / LANES, samples, in + l * samples, 1, samples, product);
            long end = least(columns, c + WIDTH);
            for (int i = 0; i < n; i++)
                for (long from = c, to; from < end; from = to) { /* the columns of one k are beside each other */
                    long k = from / n_out;
                    to = least(end, (k + 1) * n_out);
                    memcpy(gradient + (k * n_in + l + i) * n_out + from - k * n_out, (REAL *)product[i] + from - c,
                           (size_t)(to - from) * sizeof(REAL));
                }
        }
}

/* Divide every sample's state by a power of two that makes its largest value about 1; 0 and non-finite are left. */
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

/* One side of a chain: the positions of its sites and the offsets of its cores and states are those of layout.py. */
void sweep_forward(integer sites, integer d, integer samples, integer every, const integer *dims, const integer *site_at,
                   const integer *core_at, const integer *state_at, const REAL *phi, const REAL *cores, REAL *states,
                   REAL *scales, REAL *log2_scale) {
    for (long s = 0; s < sites; s++) {
        REAL *out = states + state_at[s + 1] * samples;
        next_state((const vec *)(states + state_at[s] * samples), (const vec *)(phi + site_at[s] * d * samples),
                   cores + core_at[s], (vec *)out, d, dims[s], dims[s + 1], samples / LANES);
        if ((s + 1) % every == 0) rescale(out, scales + s / every * samples, log2_scale, dims[s + 1], samples);
    }
}

/* gradient holds that of the last state and, at the end, that of the first; spare is as large as the largest state. */
void sweep_backward(integer sites, integer d, integer samples, integer every, const integer *dims,
                    const integer *site_at, const integer *core_at, const integer *state_at, const REAL *phi,
                    const REAL *cores, const REAL *states, const REAL *scales, REAL *gradient, REAL *spare, REAL *turned,
                    REAL *core_gradients, REAL *phi_gradients) {
    REAL *after = gradient, *before = spare;
    for (long s = sites - 1; s >= 0; s--) {
        const REAL *in = states + state_at[s] * samples, *here = phi + site_at[s] * d * samples;
        if ((s + 1) % every == 0)
            for (long r = 0; r < dims[s + 1]; r++)
                for (long i = 0; i < samples; i++) after[r * samples + i] *= scales[s / every * samples + i];
        core_gradient(in, here, after, core_gradients + core_at[s], turned, d, dims[s], dims[s + 1], samples);
        previous_gradient((const vec *)in, (const vec *)here, cores + core_at[s], (const vec *)after, (vec *)before,
                          (vec *)(phi_gradients ? phi_gradients + site_at[s] * d * samples : 0), d, dims[s], dims[s + 1],
                          samples / LANES);
        REAL *swap = after;
        after = before;
        before = swap;
    }
    if (after != gradient) memcpy(gradient, after, (size_t)(dims[0] * samples) * sizeof(REAL));
}
