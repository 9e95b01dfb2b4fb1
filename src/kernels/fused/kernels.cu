// Kernels for NVIDIA's GPUs: what candle has no kernel for, or only several with passes over memory between.
//
// Each thread takes the elements of a result in turns, so any number of threads gives the same numbers, and
// every sum is one of `float`s in a fixed order. Numbers are `float` (f32) or `__half` (f16). The same file
// compiles as C++ for a processor, where `.ci/kernels` holds it against plain loops.

#include <cuda_fp16.h>

// The turns of a thread: `i` from its own number up to `n`.
#define EACH(i, n) \
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < (n); i += gridDim.x * (size_t)blockDim.x)

// Terms of a mixture at most, as in `fused.rs`.
#define TERMS 16

// Sizes of windows. In a depthwise convolution output `o` reads channel `o / (outputs / c)`.
struct Windows {
  int n, c, outputs, h, w, oh, ow, k, stride, padding, dilation;
};

// What is added to the sums of a convolution and applied to them; null for nothing.
template <typename T> struct Finish {
  const float* bias;
  const T* residual;
  int activation;
};

// Candidates of a mixture and their weights.
template <typename T> struct Terms {
  const T* x[TERMS];
  float p[TERMS];
  int n;
};

static __device__ float wide(float x) { return x; }
static __device__ float wide(__half x) { return __half2float(x); }
static __device__ void put(float* y, float x) { *y = x; }
static __device__ void put(__half* y, float x) { *y = __float2half_rn(x); }

// Comparisons are such that NaN stays NaN. The numbers are those of `conv2d/fused.rs`.
static __device__ float activated(int activation, float x) {
  const float relu = x < 0.f ? 0.f : x;
  const float shifted = x + 3.f < 0.f ? 0.f : x + 3.f;
  switch (activation) {
    case 1: return x * (shifted > 6.f ? 6.f : shifted) * (1.f / 6.f);
    case 2: return relu;
    case 3: return relu > 6.f ? 6.f : relu;
    case 4: return 1.f / (1.f + expf(-x));
    case 5: return x / (1.f + expf(-x));
    case 6: return (shifted > 6.f ? 6.f : shifted) * (1.f / 6.f);
    default: return x;
  }
}

template <typename T> static __device__ float finished(Finish<T> finish, float sum, int channel, size_t i) {
  if (finish.bias) sum += finish.bias[channel];
  if (finish.residual) sum += wide(finish.residual[i]);
  return activated(finish.activation, sum);
}

// y[i] = act(x[i] + bias[channel of i] + residual[i])
template <typename T>
static __device__ void epilogue(const T* x, Finish<T> finish, T* y, int channels, int pixels, size_t n) {
  EACH(i, n) { put(&y[i], finished(finish, wide(x[i]), (int)(i / pixels % channels), i)); }
}

// y[o][oy, ox] = act(sum over ky, kx of w[o][ky, kx] x[channel of o][oy s + ky d - p][ox s + kx d - p] + ...)
template <typename T>
static __device__ void depthwise(const T* x, const T* w, Finish<T> finish, T* y, Windows at) {
  EACH(i, (size_t)at.n * at.outputs * at.oh * at.ow) {
    const int ox = (int)(i % at.ow), oy = (int)(i / at.ow % at.oh);
    const size_t plane = i / ((size_t)at.ow * at.oh);
    const int o = (int)(plane % at.outputs);
    const size_t from = plane / at.outputs * at.c + o / (at.outputs / at.c);
    float sum = 0.f;
    for (int ky = 0; ky < at.k; ++ky) {
      const int iy = oy * at.stride + ky * at.dilation - at.padding;
      if (iy < 0 || iy >= at.h) continue;
      for (int kx = 0; kx < at.k; ++kx) {
        const int ix = ox * at.stride + kx * at.dilation - at.padding;
        if (ix < 0 || ix >= at.w) continue;
        sum += wide(w[((size_t)o * at.k + ky) * at.k + kx]) * wide(x[(from * at.h + iy) * at.w + ix]);
      }
    }
    put(&y[i], finished(finish, sum, o, i));
  }
}

// dx[c][iy, ix] = sum over the outputs o of c and over ky, kx of w[o][ky, kx] dy[o][oy, ox],
// where oy s + ky d - p = iy and ox s + kx d - p = ix
template <typename T> static __device__ void depthwise_dx(const T* dy, const T* w, T* dx, Windows at) {
  const int outputs = at.outputs / at.c;
  EACH(i, (size_t)at.n * at.c * at.h * at.w) {
    const int ix = (int)(i % at.w), iy = (int)(i / at.w % at.h);
    const size_t plane = i / ((size_t)at.w * at.h);
    const int c = (int)(plane % at.c);
    float sum = 0.f;
    for (int o = c * outputs; o < (c + 1) * outputs; ++o) {
      const size_t from = plane / at.c * at.outputs + o;
      for (int ky = 0; ky < at.k; ++ky) {
        const int y = iy + at.padding - ky * at.dilation;
        if (y < 0 || y % at.stride != 0 || y / at.stride >= at.oh) continue;
        for (int kx = 0; kx < at.k; ++kx) {
          const int x = ix + at.padding - kx * at.dilation;
          if (x < 0 || x % at.stride != 0 || x / at.stride >= at.ow) continue;
          const float weight = wide(w[((size_t)o * at.k + ky) * at.k + kx]);
          sum += weight * wide(dy[(from * at.oh + y / at.stride) * at.ow + x / at.stride]);
        }
      }
    }
    put(&dx[i], sum);
  }
}

// parts[o, ky, kx][lane] = a share of the sum over images, oy, ox of dy[o][oy, ox] x[channel of o][iy, ix]
template <typename T>
static __device__ void depthwise_dw(const T* dy, const T* x, float* parts, int lanes, Windows at) {
  const int taps = at.k * at.k;
  EACH(i, (size_t)at.outputs * taps * lanes) {
    const int lane = (int)(i % lanes), tap = (int)(i / lanes % taps), o = (int)(i / lanes / taps);
    const int ky = tap / at.k, kx = tap % at.k;
    float sum = 0.f;
    for (size_t j = lane; j < (size_t)at.n * at.oh * at.ow; j += lanes) {
      const int ox = (int)(j % at.ow), oy = (int)(j / at.ow % at.oh);
      const size_t image = j / ((size_t)at.ow * at.oh);
      const int iy = oy * at.stride + ky * at.dilation - at.padding;
      const int ix = ox * at.stride + kx * at.dilation - at.padding;
      if (iy < 0 || iy >= at.h || ix < 0 || ix >= at.w) continue;
      const size_t from = image * at.c + o / (at.outputs / at.c);
      const size_t to = image * at.outputs + o;
      sum += wide(dy[(to * at.oh + oy) * at.ow + ox]) * wide(x[(from * at.h + iy) * at.w + ix]);
    }
    parts[i] = sum;
  }
}

// columns[c, ky, kx][oy, ox] = x[c][oy s + ky d - p][ox s + kx d - p], 0 outside. Places of columns are numbers of
// 32 bits, whose division is not the most of the work.
template <typename T> static __device__ void columns(const T* x, T* columns, Windows at) {
  const unsigned taps = at.k * at.k;
  EACH(i, (size_t)at.n * at.c * taps * at.oh * at.ow) {
    const unsigned row = (unsigned)i / at.ow, plane = row / at.oh, tap = plane % taps, k = at.k;
    const int iy = (int)(row % at.oh) * at.stride + (int)(tap / k) * at.dilation - at.padding;
    const int ix = (int)((unsigned)i % at.ow) * at.stride + (int)(tap % k) * at.dilation - at.padding;
    const bool inside = iy >= 0 && iy < at.h && ix >= 0 && ix < at.w;
    put(&columns[i], inside ? wide(x[((size_t)(plane / taps) * at.h + iy) * at.w + ix]) : 0.f);
  }
}

// columns[o, ky, kx][iy, ix] = dy[o][oy, ox] where oy s + ky d - p = iy and ox s + kx d - p = ix, 0 where there is
// no such output
template <typename T> static __device__ void adjoint_columns(const T* dy, T* columns, Windows at) {
  const unsigned taps = at.k * at.k;
  EACH(i, (size_t)at.n * at.outputs * taps * at.h * at.w) {
    const unsigned row = (unsigned)i / at.w, plane = row / at.h, tap = plane % taps, k = at.k;
    const int y = (int)(row % at.h) + at.padding - (int)(tap / k) * at.dilation;
    const int x = (int)((unsigned)i % at.w) + at.padding - (int)(tap % k) * at.dilation;
    const bool is_whole = y >= 0 && x >= 0 && y % at.stride == 0 && x % at.stride == 0;
    const int oy = y / at.stride, ox = x / at.stride;
    const bool is_there = is_whole && oy < at.oh && ox < at.ow;
    put(&columns[i], is_there ? wide(dy[((size_t)(plane / taps) * at.oh + oy) * at.ow + ox]) : 0.f);
  }
}

// y[i] = sum over the terms t of p[t] x[t][i]; a term of weight 0 is not read
template <typename T> static __device__ void mixture(Terms<T> terms, T* y, size_t n) {
  EACH(i, n) {
    float sum = 0.f;
    for (int t = 0; t < terms.n; ++t) {
      if (terms.p[t] != 0.f) sum += terms.p[t] * wide(terms.x[t][i]);
    }
    put(&y[i], sum);
  }
}

// parts[i] = a share of the sum of a[j] b[j]
template <typename T>
static __device__ void products(const T* a, const T* b, float* parts, size_t n, size_t shares) {
  EACH(i, shares) {
    float sum = 0.f;
    for (size_t j = i; j < n; j += shares) sum += wide(a[j]) * wide(b[j]);
    parts[i] = sum;
  }
}

// Every kernel for one type of numbers, under a name that Rust can ask for.
#define KERNELS(T, NAME)                                                                                     \
  extern "C" __global__ void epilogue_##NAME(const T* x, Finish<T> finish, T* y, int channels, int pixels,  \
                                             size_t n) {                                                     \
    epilogue(x, finish, y, channels, pixels, n);                                                             \
  }                                                                                                          \
  extern "C" __global__ void depthwise_##NAME(const T* x, const T* w, Finish<T> finish, T* y, Windows at) { \
    depthwise(x, w, finish, y, at);                                                                          \
  }                                                                                                          \
  extern "C" __global__ void depthwise_dx_##NAME(const T* dy, const T* w, T* dx, Windows at) {              \
    depthwise_dx(dy, w, dx, at);                                                                             \
  }                                                                                                          \
  extern "C" __global__ void depthwise_dw_##NAME(const T* dy, const T* x, float* parts, int lanes,          \
                                                 Windows at) {                                               \
    depthwise_dw(dy, x, parts, lanes, at);                                                                   \
  }                                                                                                          \
  extern "C" __global__ void columns_##NAME(const T* x, T* y, Windows at) { columns(x, y, at); }            \
  extern "C" __global__ void adjoint_columns_##NAME(const T* dy, T* y, Windows at) {                        \
    adjoint_columns(dy, y, at);                                                                              \
  }                                                                                                          \
  extern "C" __global__ void mixture_##NAME(Terms<T> terms, T* y, size_t n) { mixture(terms, y, n); }       \
  extern "C" __global__ void products_##NAME(const T* a, const T* b, float* parts, size_t n, size_t shares) { \
    products(a, b, parts, n, shares);                                                                        \
  }

KERNELS(float, f32)
KERNELS(__half, f16)
