// A stand-in for CUDA's header, so that kernels compile as C++ for this processor: a half is the
// compiler's own, and "threads" are numbers that a loop counts.
#pragma once
#include <cmath>
#include <cstddef>

#define __device__
#define __global__

struct Place {
  unsigned x;
};
static Place blockIdx, threadIdx, blockDim, gridDim;

typedef _Float16 __half;
static float __half2float(__half x) { return (float)x; }
static __half __float2half_rn(float x) { return (__half)x; }

// Runs `kernel` once for each thread of so many blocks.
template <typename F> static void launch(unsigned blocks, unsigned threads, F kernel) {
  gridDim.x = blocks;
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel();
  }
}
