// A prototype of the directional scan (float16, N = 16, D a multiple of 32) whose time runs over the lanes of a warp,
// one kernel for each pass: a lane holds T consecutive steps of CH channels, G lanes make a tile of 64 steps, and
// the lanes' parts are joined by a scan over (decay, state) in shuffles.  Nothing is cut: one pass over the sequence
// gives all there is to give, and one exponential per state and step serves both walks through a lane's part.
// Arguments as in `_triton_kernels.py`, but for states before each tile, which lie as (b, K, tiles, N, D).

#ifdef BACKWARD
enum { CH = 2, T = 8, G = 8, PROGRAMS = 3 };  // the last: of a multiprocessor, with the registers they need
#else
enum { CH = 1, T = 16, G = 4, PROGRAMS = 4 };
#endif
enum {
    K = 4,
    N = 16,
    BD = 32,                  // channels of a program
    STEPS = G * T,            // of a tile
    THREADS = BD * G / CH,
    PASS = THREADS / 4,       // steps that are staged at once, a quarter of the channels and states by each thread
    PART = T * BD + 8,        // a lane's part of x, dt, ...; a few more because of the banks
    ROW = T + 4,              // the same of one state of B or C
    TABLE = G * ROW,
    SUMS = 2 * STEPS + 2,     // what one state has in dB and dC
};
typedef unsigned short half_bits;

__device__ float ex2(float v) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v)); return r; }
__device__ float wide(half_bits v) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v)); return r; }
__device__ half_bits narrow(float v) { half_bits r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v)); return r; }
__device__ float up(float v, int lanes) { return __shfl_up_sync(~0u, v, lanes, G); }
__device__ float down(float v, int lanes) { return __shfl_down_sync(~0u, v, lanes, G); }

__device__ float softplus(float z) {
    const float c[] = {-0.02958850748836994f, 0.07836166769266129f, -0.13674770295619965f, 0.19111430644989014f,
                       -0.24844369292259216f, 0.33319270610809326f, -0.49999502301216125f, 1.0f};
    float e = ex2(-fabsf(z) * 1.4426950408889634f), p = 0.005253457929939032f;
#pragma unroll
    for (int i = 0; i < 8; i++) p = fmaf(p, e, c[i]);
    return fmaf(e, p, fmaxf(z, 0.0f));
}

// A row-major walk goes through columns of one pixel; backwards is the same from the other end.
__device__ unsigned pixel(unsigned t, unsigned k, unsigned H, unsigned W, unsigned L) {
    unsigned column = k % 2 ? H : 1;
    int sign = k >= 2 ? -1 : 1;
    return (k >= 2 ? L - 1 : 0) + sign * (int)(t % column * W + t / column);
}

__device__ void stage_half(half_bits* to, const half_bits* from, bool there) {
    uint4 v = *(const uint4*)from;
    *(uint4*)to = there ? v : make_uint4(0xfc00fc00, 0xfc00fc00, 0xfc00fc00, 0xfc00fc00);  // -inf: a step of no length
}

__device__ void stage_states(float* to, const float* from) {  // four states of one step
    float4 v = *(const float4*)from;
    to[0] = v.x, to[TABLE] = v.y, to[2 * TABLE] = v.z, to[3 * TABLE] = v.w;
}

__device__ void load_part(float* to, const float* from) {
#pragma unroll
    for (int i = 0; i < T / 4; i++) {
        float4 v = ((const float4*)from)[i];
        to[4 * i] = v.x, to[4 * i + 1] = v.y, to[4 * i + 2] = v.z, to[4 * i + 3] = v.w;
    }
}

#ifndef BACKWARD
extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS) time_in_lanes(
    const half_bits* __restrict__ x, const half_bits* __restrict__ dt, const float* __restrict__ B,
    const float* __restrict__ C, const float* __restrict__ A, const float* __restrict__ Ds,
    const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ states, unsigned H, unsigned W,
    unsigned L, unsigned D, unsigned batch) {
    extern __shared__ float4 global_smem[];
    float *sB = (float*)global_smem, *sC = sB + N * TABLE, *sy = sC + N * TABLE, *carry = sy + G * PART;
    float* sA = carry + N * THREADS;
    half_bits *sx = (half_bits*)sy, *sdt = sx + G * PART;  // the same place as y, which comes when they are done with
    unsigned *pixels = (unsigned*)(sA + N * BD), thread = threadIdx.x, blocks = D / BD, k = blockIdx.x / blocks % K;
    unsigned own = blockIdx.x % blocks * BD, g = thread % G, c = thread / G, step = thread / 4, quarter = thread % 4;
    size_t b = blockIdx.x / blocks / K, image = b * L * D + own + 8 * quarter;
    for (unsigned i = thread; i < N * BD; i += THREADS) sA[i] = A[(k * N + i / BD) * D + own + i % BD];
    for (int n = 0; n < N; n++) carry[n * THREADS + thread] = 0.0f;
    float skip = Ds[k * D + own + c], shift = bias[k * D + own + c];
    x += image, dt += k * batch * L * D + image, y += (b * K + k) * L * D + own + 8 * quarter;
    B += (b * L * K + k) * N + 4 * quarter, C += (b * L * K + k) * N + 4 * quarter;
    states += (b * K + k) * ((L + STEPS - 1) / STEPS) * N * D + own;
    half_bits *to_x = sx + step / T * PART + step % T * BD + 8 * quarter, *to_dt = to_x + G * PART;
    float *to_B = sB + 4 * quarter * TABLE + step / T * ROW + step % T, *to_C = to_B + N * TABLE;
    half_bits *my_x = sx + g * PART + c, *my_dt = my_x + G * PART;
    for (unsigned start = 0; start < L; start += STEPS) {
        __syncthreads();
#pragma unroll
        for (unsigned i = thread; i < N * BD; i += THREADS) states[i / BD * D + i % BD] = carry[i / BD * THREADS + i % BD * G];
        states += N * D;
#pragma unroll
        for (int pass = 0; pass < STEPS / PASS; pass++) {
            unsigned t = start + pass * PASS + step;
            bool there = t < L;
            unsigned pos = pixel(there ? t : 0, k, H, W, L);
            pixels[pass * PASS + step] = pos;
            stage_half(to_x + pass * (PASS / T) * PART, x + pos * D, true);
            stage_half(to_dt + pass * (PASS / T) * PART, dt + pos * D, there);
            stage_states(to_B + pass * (PASS / T) * ROW, B + pos * (K * N));
            stage_states(to_C + pass * (PASS / T) * ROW, C + pos * (K * N));
        }
        __syncthreads();
        float delta[T], dx[T], out[T], sum = 0.0f;
#pragma unroll
        for (int j = 0; j < T; j++) {
            float v = wide(my_x[j * BD]);
            delta[j] = softplus(wide(my_dt[j * BD]) + shift);
            sum += delta[j];
            dx[j] = delta[j] * v;
            out[j] = skip * v;
        }
#pragma unroll 1
        for (int n = 0; n < N; n++) {
            float a[T], u[T], Bn[T], Cn[T], *enters = carry + n * THREADS + thread;  // zero but in the first lanes
            load_part(Bn, sB + n * TABLE + g * ROW), load_part(Cn, sC + n * TABLE + g * ROW);
            float first = *enters, An = sA[n * BD + c], P = ex2(An * sum), h = first;
            P = g ? P : 0.0f;  // nothing lies before the first lane, which so needs no mask below
#pragma unroll
            for (int j = 0; j < T; j++) a[j] = ex2(An * delta[j]), u[j] = Bn[j] * dx[j], h = fmaf(a[j], h, u[j]);
#pragma unroll
            for (int s = 1; s < G; s *= 2) {
                h = fmaf(P, up(h, s), h);
                if (2 * s < G) P *= up(P, s);
            }
            float before = __shfl_sync(~0u, h, thread - 1, G);  // the first lane gets what leaves the last
            *enters = g ? 0.0f : before;
            h = g ? before : first;
#pragma unroll
            for (int j = 0; j < T; j++) h = fmaf(a[j], h, u[j]), out[j] = fmaf(Cn[j], h, out[j]);
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < T; j++) sy[g * PART + j * BD + c] = out[j];
        __syncthreads();
#pragma unroll
        for (int pass = 0; pass < STEPS / PASS; pass++) {
            unsigned row = min(pass * PASS + step, L - 1 - start);  // behind the end the last once more
            float4* to = (float4*)(y + pixels[row] * D);
            const float4* from = (const float4*)(sy + row / T * PART + row % T * BD + 8 * quarter);
            to[0] = from[0], to[1] = from[1];
        }
    }
}
#else
__device__ void store_if(bool yes, float* to, float v) {  // without a branch
    asm volatile("{\n.reg .pred %%p9999;\nsetp.ne.s32 %%p9999, %0, 0;\n@%%p9999 st.shared.f32 [%1], %2;\n}"
                 :: "r"((int)yes), "l"(__cvta_generic_to_shared(to)), "f"(v) : "memory");
}

// Sums of T steps over the lanes of a warp that differ in channel; a lane keeps two of them.
__device__ void over_channels(float* v, unsigned lane) {
    unsigned twin = lane;
    asm("" : "+r"(twin));  // not known to be the same: two selects and no branch that swaps
#pragma unroll
    for (int bit = 16, count = T / 2; bit >= G; bit /= 2, count /= 2)
#pragma unroll
        for (int j = 0; j < count; j++) {
            float send = lane & bit ? v[j] : v[j + count], keep = twin & bit ? v[j + count] : v[j];
            v[j] = keep + __shfl_xor_sync(~0u, send, bit);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS) time_in_lanes(
    const float* __restrict__ dy, const half_bits* __restrict__ x, const half_bits* __restrict__ dt,
    const float* __restrict__ B, const float* __restrict__ C, const float* __restrict__ A,
    const float* __restrict__ Ds, const float* __restrict__ bias, const float* __restrict__ states,
    float* __restrict__ dx_parts, half_bits* __restrict__ ddt, float* __restrict__ dB_parts,
    float* __restrict__ dC_parts, float* __restrict__ dA_parts, float* __restrict__ dD_parts,
    float* __restrict__ dbias_parts, unsigned H, unsigned W, unsigned L, unsigned D, unsigned batch) {
    extern __shared__ float4 global_smem[];
    float *sB = (float*)global_smem, *sC = sB + N * TABLE, *sA = sC + N * TABLE, *entry = sA + N * BD;
    float *exit = entry + N * BD, *sdA = exit + N * BD, *sx_ = sdA + N * CH * THREADS, *sdy = sx_ + G * PART, *sums = sdy;
    half_bits *sx = (half_bits*)sx_, *sdt = sx + G * PART;
    unsigned *pixels = (unsigned*)(sums + THREADS / 32 * N * SUMS), thread = threadIdx.x, blocks = D / BD;
    unsigned block = blockIdx.x % blocks, k = blockIdx.x / blocks % K, own = block * BD, lane = thread % 32;
    unsigned g = thread % G, c = thread / G * CH, step = thread / 4, quarter = thread % 4;
    unsigned tiles = (L + STEPS - 1) / STEPS;
    size_t b = blockIdx.x / blocks / K, image = b * L * D + own + 8 * quarter, row_0 = (b * L * K + k) * N + 4 * quarter;
    for (unsigned i = thread; i < N * BD; i += THREADS) sA[i] = A[(k * N + i / BD) * D + own + i % BD], exit[i] = 0.0f;
    for (int n = 0; n < N * CH; n++) sdA[n * THREADS + thread] = 0.0f;
    float skip[CH], shift[CH], dD[CH], dbias[CH];
    for (int i = 0; i < CH; i++) {
        skip[i] = Ds[k * D + own + c + i], shift[i] = bias[k * D + own + c + i];
        dD[i] = dbias[i] = 0.0f;
    }
    dy += image, x += image, dt += k * batch * L * D + image, B += row_0, C += row_0;
    dx_parts += (b * K + k) * L * D + own + 8 * quarter, ddt += k * batch * L * D + image;
    dB_parts += block * batch * L * K * N + row_0, dC_parts += block * batch * L * K * N + row_0;
    states += (b * K + k) * tiles * N * D + own;
    unsigned to = step / T * PART + step % T * BD + 8 * quarter, mine = g * PART + c;
    half_bits *to_x = sx + to, *to_dt = sdt + to, *my_x = sx + mine, *my_dt = sdt + mine;
    float *to_dy = sdy + to, *my_dy = sdy + mine;
    float *to_B = sB + 4 * quarter * TABLE + step / T * ROW + step % T, *to_C = to_B + N * TABLE;
    for (unsigned tile = tiles; tile-- > 0;) {
        unsigned start = tile * STEPS;
        __syncthreads();
        *(float4*)(entry + 4 * thread) = *(const float4*)(states + (tile * N + thread / 8) * D + thread % 8 * 4);
#pragma unroll
        for (int pass = 0; pass < STEPS / PASS; pass++) {
            unsigned t = start + pass * PASS + step;
            bool there = t < L;
            unsigned pos = pixel(there ? t : 0, k, H, W, L);
            pixels[pass * PASS + step] = pos;
            stage_half(to_x + pass * (PASS / T) * PART, x + pos * D, true);
            stage_half(to_dt + pass * (PASS / T) * PART, dt + pos * D, there);
            stage_states(to_B + pass * (PASS / T) * ROW, B + pos * (K * N));
            stage_states(to_C + pass * (PASS / T) * ROW, C + pos * (K * N));
#pragma unroll
            for (int i = 0; i < 8; i += 4) {
                float4 v = *(const float4*)(dy + pos * D + i);
                *(float4*)(to_dy + pass * (PASS / T) * PART + i) = there ? v : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            }
        }
        __syncthreads();
        float delta[CH][T], dx[CH][T], dyc[CH][T], gB[CH][T], qA[CH][T], sum[CH];
#pragma unroll
        for (int i = 0; i < CH; i++) {
            sum[i] = 0.0f;
#pragma unroll
            for (int j = 0; j < T; j++) {
                float v = wide(my_x[j * BD + i]);
                delta[i][j] = softplus(wide(my_dt[j * BD + i]) + shift[i]);
                dyc[i][j] = my_dy[j * BD + i];
                sum[i] += delta[i][j];
                dx[i][j] = delta[i][j] * v;
                dD[i] = fmaf(v, dyc[i][j], dD[i]);
                gB[i][j] = qA[i][j] = 0.0f;
            }
        }
        __syncthreads();  // `sums` takes the place of dy
#pragma unroll 1
        for (int n = 0; n < N; n++) {
            float Bn[T], Cn[T], dB[T], dC[T];
            load_part(Bn, sB + n * TABLE + g * ROW), load_part(Cn, sC + n * TABLE + g * ROW);
#pragma unroll
            for (int i = 0; i < CH; i++) {
                unsigned at = n * BD + c + i;
                float a[T], w[T], v[T], *to_dA = sdA + (n * CH + i) * THREADS + thread, dA = *to_dA;
                float An = sA[at], P = ex2(An * sum[i]), first = entry[at], last = exit[at];
                float h = g ? 0.0f : first, r = g < G - 1 ? 0.0f : last, Pr = g < G - 1 ? P : 0.0f;
                P = g ? P : 0.0f;
#pragma unroll
                for (int j = 0; j < T; j++) a[j] = ex2(An * delta[i][j]), w[j] = Bn[j] * dx[i][j], h = fmaf(a[j], h, w[j]);
#pragma unroll
                for (int j = T - 1; j >= 0; j--) v[j] = Cn[j] * dyc[i][j], r = j < T - 1 ? fmaf(a[j + 1], r, v[j]) : r + v[j];
                r *= a[0];
#pragma unroll
                for (int s = 1; s < G; s *= 2) {
                    h = fmaf(P, up(h, s), h), r = fmaf(Pr, down(r, s), r);
                    if (2 * s < G) P *= up(P, s), Pr *= down(Pr, s);
                }
                h = __shfl_sync(~0u, h, thread - 1, G), r = __shfl_sync(~0u, r, thread + 1, G);
                store_if(g == G - 1, exit + at, r);  // the last lane got what leaves the first
                h = g ? h : first, r = g < G - 1 ? r : last;
#pragma unroll
                for (int j = 0; j < T; j++) {
                    float u = w[j];
                    w[j] = a[j] * h, h = w[j] + u;
                    dC[j] = i ? fmaf(h, dyc[i][j], dC[j]) : h * dyc[i][j];
                }
#pragma unroll
                for (int j = T - 1; j >= 0; j--) {  // r becomes the gradient of the state after step j
                    r = j < T - 1 ? fmaf(a[j + 1], r, v[j]) : r + v[j];
                    dB[j] = i ? fmaf(r, dx[i][j], dB[j]) : r * dx[i][j];
                    gB[i][j] = fmaf(r, Bn[j], gB[i][j]);
                    float q = r * w[j];
                    qA[i][j] = fmaf(An, q, qA[i][j]);
                    dA = fmaf(delta[i][j], q, dA);
                }
                *to_dA = dA;
            }
            over_channels(dB, lane), over_channels(dC, lane);
            float* pair = sums + (thread / 32 * N + n) * SUMS + g * T + lane / G * (T * G / 32);
            *(float2*)pair = make_float2(dB[0], dB[1]), *(float2*)(pair + STEPS) = make_float2(dC[0], dC[1]);
        }
        __syncthreads();
#pragma unroll
        for (int pass = 0; pass < STEPS / PASS; pass++) {
            unsigned row = min(pass * PASS + step, L - 1 - start), pos = pixels[row] * (K * N);
#pragma unroll
            for (int which = 0; which < 2; which++) {
                float total[4] = {}, *from = sums + 4 * quarter * SUMS + row + which * STEPS;
#pragma unroll
                for (int i = 0; i < THREADS / 32 * 4; i++) total[i % 4] += from[(i / 4 * N + i % 4) * SUMS];
                *(float4*)((which ? dC_parts : dB_parts) + pos) = make_float4(total[0], total[1], total[2], total[3]);
            }
        }
        __syncthreads();  // dx takes the place of `sums`, ddt that of dt
#pragma unroll
        for (int i = 0; i < CH; i++)
#pragma unroll
            for (int j = 0; j < T; j++) {
                float z = wide(my_dt[j * BD + i]) + shift[i], slope = ex2((z - delta[i][j]) * 1.4426950408889634f);
                float gradient = fmaf(0.6931471805599453f, qA[i][j], wide(my_x[j * BD + i]) * gB[i][j]) * slope;
                dbias[i] += gradient;
                my_dy[j * BD + i] = fmaf(delta[i][j], gB[i][j], skip[i] * dyc[i][j]);
                my_dt[j * BD + i] = narrow(gradient);
            }
        __syncthreads();
#pragma unroll
        for (int pass = 0; pass < STEPS / PASS; pass++) {
            unsigned row = min(pass * PASS + step, L - 1 - start), pos = pixels[row] * D;
            unsigned at = row / T * PART + row % T * BD + 8 * quarter;
            float4 *to = (float4*)(dx_parts + pos), *from = (float4*)(sdy + at);
            to[0] = from[0], to[1] = from[1];
            *(uint4*)(ddt + pos) = *(uint4*)(sdt + at);
        }
    }
    __syncthreads();
    for (unsigned i = thread; i < N * BD; i += THREADS) {
        float total = 0.0f;
        for (int s = 0; s < G; s++) total += sdA[(i / BD * CH + i % CH) * THREADS + i % BD / CH * G + s];
        dA_parts[((b * K + k) * N + i / BD) * D + own + i % BD] = total;
    }
    for (int i = 0; i < CH; i++) {
        for (int s = 1; s < G; s *= 2) dD[i] += __shfl_xor_sync(~0u, dD[i], s), dbias[i] += __shfl_xor_sync(~0u, dbias[i], s);
        dD_parts[(b * K + k) * D + own + c + i] = dD[i], dbias_parts[(b * K + k) * D + own + c + i] = dbias[i];
    }
}
#endif
