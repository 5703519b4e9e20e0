// Softmax attention on Hopper GPUs (compute capability 9.0) for heads of 40 or 48 channels, bfloat16.
//
// Others pad such heads to 64 channels. Here a score costs three products of 16 channels instead of four, and a free
// channel of the values holds ones, so that the matrix units add up the weights as well. The rest is the usual plan for
// this GPU (Shah et al. 2024): one warpgroup brings tiles of keys and values, three work, each on 64 queries of one
// head; the scores of a tile and the weighted values of the tile before it are multiplied beside the exponentials. The
// softmax is built up tile by tile (Milakov and Gimelshein 2018).
//
// Compiled at run time with HEAD defined; see hopper.py.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int GROUPS = 3, ROWS = 64 * GROUPS;         // warpgroups that work, and queries of a block
constexpr int KEYS = HEAD == 40 ? 128 : 96;           // of a tile; what the registers can hold
constexpr int STAGES = 4;                             // tiles in shared memory
constexpr int CORE = 128;                             // bytes of 8 x 8 numbers, which lie together
constexpr int K_CORES = 6, V_CORES = HEAD / 8 + 1;    // along the channels: keys with zeros, values with the ones
constexpr int K_BYTES = KEYS / 8 * K_CORES * CORE, V_BYTES = KEYS / 8 * V_CORES * CORE, TILE_BYTES = K_BYTES + V_BYTES;
constexpr int SUMS = 4 * V_CORES;                     // of a thread: weighted values of its part of two queries
constexpr float SLACK = 16.0f;

// Barriers of shared memory: `wait` returns when the phase of this parity is over.

__device__ __forceinline__ u32 address_of(const void* shared) { return static_cast<u32>(__cvta_generic_to_shared(shared)); }

__device__ __forceinline__ void init(u32 barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// For one thread of a warp; as a branch it would cost the warp its uniform registers.
__device__ __forceinline__ void arrive(u32 barrier, bool is_one) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}"
                 ::"r"(barrier), "r"((int)is_one) : "memory");
}

__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
    asm volatile("{\n.reg .pred p;\nagain: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}"
                 ::"r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ void fetch_tile(u32 to, const void* from, u32 barrier) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "n"(TILE_BYTES) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "n"(TILE_BYTES), "r"(barrier) : "memory");
}

// Products of the matrix units. One operand lies in registers, the other in shared memory, told by a descriptor: where
// it begins, and how far its cores are from each other in both directions (PTX ISA, "Matrix Descriptor Format").

__device__ __forceinline__ u32 place_of(u32 address, int along_products) { return address >> 4 | along_products >> 4 << 16; }

__device__ __forceinline__ u64 descriptor(u32 place, int across) {
    u64 both;
    asm("mov.b64 %0, {%1, %2};" : "=l"(both) : "r"(place), "r"(across >> 4));
    return both;
}

#define FOUR(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define SIXTEEN(x, i) FOUR(x, i), FOUR(x, i + 4), FOUR(x, i + 8), FOUR(x, i + 12)
#define NAMES_24 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23"
#define NAMES_28 NAMES_24 ",%24,%25,%26,%27"
#define NAMES_48 NAMES_28 ",%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define NAMES_64 NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define PRODUCT(shape) "wgmma.mma_async.sync.aligned." shape ".f32.bf16.bf16 "

// scores = (begins ? 0 : scores) + queries times keys, over 16 channels.
__device__ __forceinline__ void score(float (&s)[KEYS / 2], const u32 (&queries)[4], u64 keys, bool begins) {
#if HEAD == 40
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %69, 0;\n" PRODUCT("m64n128k16")
                 "{" NAMES_64 "}, {%64,%65,%66,%67}, %68, p, 1, 1, 0;\n}"
                 : SIXTEEN(s, 0), SIXTEEN(s, 16), SIXTEEN(s, 32), SIXTEEN(s, 48)
                 : "r"(queries[0]), "r"(queries[1]), "r"(queries[2]), "r"(queries[3]), "l"(keys), "r"((int)begins));
#else
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %53, 0;\n" PRODUCT("m64n96k16")
                 "{" NAMES_48 "}, {%48,%49,%50,%51}, %52, p, 1, 1, 0;\n}"
                 : SIXTEEN(s, 0), SIXTEEN(s, 16), SIXTEEN(s, 32)
                 : "r"(queries[0]), "r"(queries[1]), "r"(queries[2]), "r"(queries[3]), "l"(keys), "r"((int)begins));
#endif
}

// sums += weights times values, over 16 keys.
__device__ __forceinline__ void mix(float (&o)[SUMS], const u32* weights, u64 values) {
#if HEAD == 40
    asm volatile(PRODUCT("m64n48k16") "{" NAMES_24 "}, {%24,%25,%26,%27}, %28, 1, 1, 1, 1;\n"
                 : SIXTEEN(o, 0), FOUR(o, 16), FOUR(o, 20)
                 : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(values));
#else
    asm volatile(PRODUCT("m64n56k16") "{" NAMES_28 "}, {%28,%29,%30,%31}, %32, 1, 1, 1, 1;\n"
                 : SIXTEEN(o, 0), FOUR(o, 16), FOUR(o, 20), FOUR(o, 24)
                 : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(values));
#endif
}

__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Wait until at most LEFT groups are under way, and keep the compiler from moving what they wrote across.
template <int LEFT, int N> __device__ __forceinline__ void finish(float (&written)[N]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(written[i])::"memory");
}

// Softmax. A thread holds two queries' scores in turns of two; three neighbours hold the rest of the same queries.

__device__ __forceinline__ float exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

__device__ __forceinline__ u32 round_pair(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Weights are relative to 2^top of their query. Does any score of this warp exceed that by so much that it must rise?
// With some slack it hardly ever does after the first tile, and then nothing is rescaled.
__device__ __forceinline__ bool must_rise(const float (&s)[KEYS / 2], float scale, const float (&tops)[2], float (&most)[2]) {
#pragma unroll
    for (int row = 0; row < 2; row++) {
        float even = fmaxf(s[2 * row], s[2 * row + 1]), odd = fmaxf(s[2 * row + 4], s[2 * row + 5]);
#pragma unroll
        for (int i = 8; i < KEYS / 2; i += 8) {
            even = fmaxf(even, fmaxf(s[i + 2 * row], s[i + 2 * row + 1]));
            odd = fmaxf(odd, fmaxf(s[i + 4 + 2 * row], s[i + 5 + 2 * row]));
        }
        most[row] = fmaxf(even, odd);
    }
    bool is_above = fmaf(most[0], scale, -tops[0]) > SLACK || fmaf(most[1], scale, -tops[1]) > SLACK;
    return __any_sync(~0u, is_above);
}

__device__ __forceinline__ void rise(float (&tops)[2], float (&most)[2], float scale, float (&o)[SUMS]) {
    float shrink[2];
#pragma unroll
    for (int row = 0; row < 2; row++) {
        most[row] = fmaxf(most[row], __shfl_xor_sync(~0u, most[row], 1));
        most[row] = fmaxf(most[row], __shfl_xor_sync(~0u, most[row], 2));
        float top = fmaxf(tops[row], most[row] * scale);
        shrink[row] = exp2(tops[row] - top);
        tops[row] = top;
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++) o[i] *= shrink[i >> 1 & 1];
}

// query : (batch, tokens, heads, HEAD) by its steps, counted in numbers. packed : by `pack`. mixed : as query, dense.
// scale_log2 : of the scores, in powers of two. grid : (tokens / ROWS, heads, batch), threads: 128 * (GROUPS + 1).
extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1) attend(
    const char* query, const char* packed, char* mixed, int tokens, int tiles, int heads,
    int token_step, int head_step, int batch_step, double scale_log2) {
    extern __shared__ __align__(128) char memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    u32 tiles_at = address_of(memory), full = address_of(barriers), empty = full + 8 * STAGES;
    int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32, head = blockIdx.y, batch = blockIdx.z;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            init(full + 8 * stage, 1);
            init(empty + 8 * stage, 4 * GROUPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (warp >= 4 * GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        if (threadIdx.x == 128 * GROUPS) {
            const char* from = packed + (long long)(batch * heads + head) * tiles * TILE_BYTES;
            for (int tile = 0; tile < tiles; tile++) {
                int stage = tile % STAGES;
                wait(empty + 8 * stage, (tile / STAGES & 1) ^ 1);
                fetch_tile(tiles_at + stage * TILE_BYTES, from + (long long)tile * TILE_BYTES, full + 8 * stage);
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
        float scale = (float)scale_log2;
        int first = blockIdx.x * ROWS + warp * 16 + lane / 4, channel = lane % 4 * 2;
        const char* own = query + 2 * ((long long)batch * batch_step + (long long)head * head_step);
        u32 q[3][4];
#pragma unroll
        for (int i = 0; i < 12; i++) {
            int token = min(first + (i & 1) * 8, tokens - 1), at = i / 4 * 16 + (i >> 1 & 1) * 8 + channel;
            q[i / 4][i & 3] = at < HEAD ? *(const u32*)(own + 2 * ((long long)token * token_step + at)) : 0;
        }
        // Keys are read 8 x 8 numbers at a time along the channels, values along the keys.
        u32 keys_at = place_of(tiles_at, CORE), values_at = place_of(tiles_at + K_BYTES, V_CORES * CORE);
        float s[KEYS / 2], o[SUMS], tops[2] = {-1e30f, -1e30f}, most[2];
        u32 weights[KEYS / 4];
#pragma unroll
        for (int i = 0; i < SUMS; i++) o[i] = 0;
#pragma unroll
        for (int i = 0; i < KEYS / 4; i++) weights[i] = 0;
        u32 here = 0, before = 0, parity = 0;
        wait(full, 0);
        for (int tile = 0; tile < tiles; tile++) {
            begin();
#pragma unroll
            for (int step = 0; step < 3; step++)
                score(s, q[step], descriptor(keys_at + (here * TILE_BYTES + step * 2 * CORE >> 4), K_CORES * CORE), step == 0);
            commit();
            begin();
#pragma unroll
            for (int step = 0; step < KEYS / 16; step++)
                mix(o, weights + 4 * step,
                    descriptor(values_at + (before * TILE_BYTES + step * 2 * V_CORES * CORE >> 4), CORE));
            commit();
            finish<1>(s);
            if (must_rise(s, scale, tops, most)) {
                finish<0>(o);
                rise(tops, most, scale, o);
            }
#pragma unroll
            for (int i = 0; i < KEYS / 2; i++) s[i] = exp2(fmaf(s[i], scale, -tops[i >> 1 & 1]));
            u32 after = here + 1 == STAGES ? 0 : here + 1;
            parity ^= after == 0;
            // Before the wait below: a loop between, and the compiler leaves the exponentials on this side of it.
            if (tile + 1 < tiles) wait(full + 8 * after, parity);
            finish<0>(o);
            arrive(empty + 8 * before, lane == 0 && tile > 0);
            before = here;
            here = after;
#pragma unroll
            for (int i = 0; i < KEYS / 4; i++) weights[i] = round_pair(s[2 * i], s[2 * i + 1]);
        }
        begin();
#pragma unroll
        for (int step = 0; step < KEYS / 16; step++)
            mix(o, weights + 4 * step, descriptor(values_at + (before * TILE_BYTES + step * 2 * V_CORES * CORE >> 4), CORE));
        commit();
        finish<0>(o);
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float factor = 1.0f / __shfl_sync(~0u, o[4 * (HEAD / 8) + 2 * row], lane & ~3);
            int token = first + 8 * row;
            if (token >= tokens) continue;
            char* to = mixed + 2 * ((((long long)batch * tokens + token) * heads + head) * HEAD + channel);
#pragma unroll
            for (int core = 0; core < HEAD / 8; core++)
                *(u32*)(to + 16 * core) = round_pair(o[4 * core + 2 * row] * factor, o[4 * core + 2 * row + 1] * factor);
        }
    }
}

// Keys and values, (batch, count, heads, HEAD) by their steps, to the tiles that `attend` reads. The last tile is filled
// up with copies of the last key, whose values and weights are zero. grid : (tiles, heads, batch), threads: 256.
extern "C" __global__ void __launch_bounds__(256) pack(
    const char* keys, const char* values, char* packed, int count,
    int key_step, int key_head_step, int key_batch_step, int value_step, int value_head_step, int value_batch_step) {
    int tile = blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
    uint4* to = (uint4*)(packed + ((long long)(batch * gridDim.y + head) * gridDim.x + tile) * TILE_BYTES);
    keys += 2 * ((long long)batch * key_batch_step + (long long)head * key_head_step);
    values += 2 * ((long long)batch * value_batch_step + (long long)head * value_head_step);
    for (int cell = threadIdx.x; cell < TILE_BYTES / 16; cell += 256) {
        bool is_value = cell >= K_BYTES / 16;
        int place = is_value ? cell - K_BYTES / 16 : cell, cores = is_value ? V_CORES : K_CORES;
        int core = place / 8 % cores, token = tile * KEYS + place / 8 / cores * 8 + place % 8;
        bool is_real = token < count;
        uint4 numbers = {0, 0, 0, 0};
        if (core < HEAD / 8 && (is_real || !is_value)) {
            long long at = (long long)min(token, count - 1) * (is_value ? value_step : key_step) + 8 * core;
            numbers = *(const uint4*)((is_value ? values : keys) + 2 * at);
        } else if (is_value && core == HEAD / 8 && is_real) {
            numbers.x = 0x3F80;  // a one, then a zero
        }
        to[cell] = numbers;
    }
}
