// The CUDA kernels, compiled for this processor, against plain loops in double precision: random sizes,
// f32 and f16, and fewer threads than elements as well as more. Ends with 1 where one differs.

#include "../../src/kernels/fused/kernels.cu"

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

static std::mt19937 rng(2111);

static int below(int n) { return (int)(rng() % (unsigned)n); }

template <typename T> static std::vector<T> drawn(size_t n) {
  std::normal_distribution<float> normal;
  std::vector<T> numbers(n);
  for (T& x : numbers) x = (T)normal(rng);
  return numbers;
}

// How far a number of type T may be from the sum of terms of this magnitude.
template <typename T> static double bound(double magnitude) {
  return (sizeof(T) == 2 ? 1e-3 : 1e-6) * (1.0 + magnitude);
}

static void check(const std::string& what, size_t i, double got, double want, double bound) {
  if (std::fabs(got - want) <= bound) return;
  std::printf("%s: element %zu is %g, expected %g within %g\n", what.c_str(), i, got, want, bound);
  std::exit(1);
}

// Some blocks of some threads: one thread at least.
template <typename F> static void anywhere(F kernel) { launch(1 + below(3), 1 + below(70), kernel); }

static double plain_activation(int kind, double x) {
  const double relu = x > 0 ? x : 0;
  switch (kind) {
    case 1: return x * std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case 2: return relu;
    case 3: return std::fmin(relu, 6);
    case 4: return 1 / (1 + std::exp(-x));
    case 5: return x / (1 + std::exp(-x));
    case 6: return std::fmin(std::fmax(x + 3, 0), 6) / 6;
    default: return x;
  }
}

static Windows windows() {
  Windows at;
  at.n = 1 + below(3), at.c = 1 + below(4), at.outputs = at.c * (1 + below(3));
  at.k = 1 + below(5), at.stride = 1 + below(3), at.padding = below(4), at.dilation = 1 + below(2);
  const int reach = at.dilation * (at.k - 1) + 1;
  const int least = std::max(1, reach - 2 * at.padding);
  at.h = least + below(6), at.w = least + below(6);
  at.oh = (at.h + 2 * at.padding - reach) / at.stride + 1;
  at.ow = (at.w + 2 * at.padding - reach) / at.stride + 1;
  return at;
}

// Calls `visit(o, tap, output, input)` for every product of a depthwise convolution, by its definition.
template <typename F> static void products_of(const Windows& at, F visit) {
  for (int n = 0; n < at.n; ++n)
    for (int o = 0; o < at.outputs; ++o)
      for (int oy = 0; oy < at.oh; ++oy)
        for (int ox = 0; ox < at.ow; ++ox)
          for (int ky = 0; ky < at.k; ++ky)
            for (int kx = 0; kx < at.k; ++kx) {
              const int iy = oy * at.stride + ky * at.dilation - at.padding;
              const int ix = ox * at.stride + kx * at.dilation - at.padding;
              if (iy < 0 || iy >= at.h || ix < 0 || ix >= at.w) continue;
              const int c = o / (at.outputs / at.c);
              visit(o, ky * at.k + kx, ((n * at.outputs + o) * at.oh + oy) * at.ow + ox,
                    ((n * at.c + c) * at.h + iy) * at.w + ix);
            }
}

template <typename T> struct Kernels;

#define KERNELS_OF(T, NAME)                                                                       \
  template <> struct Kernels<T> {                                                                 \
    static constexpr auto adjoint_columns = adjoint_columns_##NAME;                               \
    static constexpr auto columns = columns_##NAME;                                               \
    static constexpr auto depthwise = depthwise_##NAME;                                           \
    static constexpr auto depthwise_dw = depthwise_dw_##NAME;                                     \
    static constexpr auto depthwise_dx = depthwise_dx_##NAME;                                     \
    static constexpr auto epilogue = epilogue_##NAME;                                             \
    static constexpr auto mixture = mixture_##NAME;                                               \
    static constexpr auto products = products_##NAME;                                             \
  };
KERNELS_OF(float, f32)
KERNELS_OF(__half, f16)

template <typename T> static void check_depthwise() {
  const Windows at = windows();
  const size_t outputs = (size_t)at.n * at.outputs * at.oh * at.ow;
  const size_t inputs = (size_t)at.n * at.c * at.h * at.w, weights = (size_t)at.outputs * at.k * at.k;
  const auto x = drawn<T>(inputs), w = drawn<T>(weights), dy = drawn<T>(outputs), residual = drawn<T>(outputs);
  const auto bias = drawn<float>(at.outputs);
  std::vector<double> y(outputs), dx(inputs), dw(weights), y_size(outputs), dx_size(inputs), dw_size(weights);
  products_of(at, [&](int o, int tap, int to, int from) {
    const int weight = o * at.k * at.k + tap;
    const double products[3] = {(double)w[weight] * (double)x[from], (double)w[weight] * (double)dy[to],
                                (double)dy[to] * (double)x[from]};
    y[to] += products[0], dx[from] += products[1], dw[weight] += products[2];
    y_size[to] += std::fabs(products[0]), dx_size[from] += std::fabs(products[1]);
    dw_size[weight] += std::fabs(products[2]);
  });

  const Finish<T> finish = {below(2) ? bias.data() : nullptr, below(2) ? residual.data() : nullptr, below(7)};
  std::vector<T> got_y(outputs), got_dx(inputs), got_end(outputs);
  anywhere([&] { Kernels<T>::depthwise(x.data(), w.data(), finish, got_y.data(), at); });
  anywhere([&] {
    Kernels<T>::epilogue(dy.data(), finish, got_end.data(), at.outputs, at.oh * at.ow, outputs);
  });
  for (size_t i = 0; i < outputs; ++i) {
    double more = finish.bias ? bias[i / (at.oh * at.ow) % at.outputs] : 0;
    more += finish.residual ? (double)residual[i] : 0;
    const double want = plain_activation(finish.activation, y[i] + more);
    check("depthwise", i, got_y[i], want, bound<T>(y_size[i] + std::fabs(more) + std::fabs(want)));
    const double end = plain_activation(finish.activation, (double)dy[i] + more);
    check("epilogue", i, got_end[i], end, bound<T>(std::fabs((double)dy[i]) + std::fabs(more) + std::fabs(end)));
  }

  anywhere([&] { Kernels<T>::depthwise_dx(dy.data(), w.data(), got_dx.data(), at); });
  for (size_t i = 0; i < inputs; ++i) check("depthwise dx", i, got_dx[i], dx[i], bound<T>(dx_size[i]));
  const int lanes = 1 + below(80);
  std::vector<float> parts(weights * lanes, NAN);
  anywhere([&] { Kernels<T>::depthwise_dw(dy.data(), x.data(), parts.data(), lanes, at); });
  for (size_t i = 0; i < weights; ++i) {
    double sum = 0;
    for (int lane = 0; lane < lanes; ++lane) sum += parts[i * lanes + lane];
    check("depthwise dw", i, sum, dw[i], bound<float>(dw_size[i]));
  }
}

template <typename T> static void check_columns() {
  Windows at = windows();
  at.outputs = at.c;
  const size_t taps = at.k * at.k, planes = (size_t)at.n * at.c, outputs = at.oh * at.ow, inputs = at.h * at.w;
  const auto x = drawn<T>(planes * inputs), dy = drawn<T>(planes * outputs);
  std::vector<double> columns(planes * taps * outputs), adjoint(planes * taps * inputs);
  products_of(at, [&](int, int tap, int to, int from) {
    const size_t plane = to / outputs;
    columns[(plane * taps + tap) * outputs + to % outputs] = (double)x[from];
    adjoint[(plane * taps + tap) * inputs + from % inputs] = (double)dy[to];
  });
  std::vector<T> got(columns.size()), got_adjoint(adjoint.size());
  anywhere([&] { Kernels<T>::columns(x.data(), got.data(), at); });
  anywhere([&] { Kernels<T>::adjoint_columns(dy.data(), got_adjoint.data(), at); });
  for (size_t i = 0; i < columns.size(); ++i) check("columns", i, got[i], columns[i], 0);
  for (size_t i = 0; i < adjoint.size(); ++i) check("adjoint columns", i, got_adjoint[i], adjoint[i], 0);
}

template <typename T> static void check_mixture() {
  const size_t n = 1 + below(500);
  Terms<T> terms;
  terms.n = 1 + below(TERMS);
  std::vector<std::vector<T>> xs;
  for (int t = 0; t < terms.n; ++t) {
    xs.push_back(drawn<T>(n));
    terms.x[t] = xs[t].data();
    terms.p[t] = below(4) ? drawn<float>(1)[0] : 0.f;
    // What is ruled out may hold anything.
    if (terms.p[t] == 0.f) xs[t].assign(n, (T)NAN);
  }
  std::vector<T> y(n);
  anywhere([&] { Kernels<T>::mixture(terms, y.data(), n); });
  for (size_t i = 0; i < n; ++i) {
    double sum = 0, size = 0;
    for (int t = 0; t < terms.n; ++t) {
      if (terms.p[t] == 0.f) continue;
      sum += terms.p[t] * (double)xs[t][i], size += std::fabs(terms.p[t] * (double)xs[t][i]);
    }
    check("mixture", i, y[i], sum, bound<T>(size));
  }

  const auto a = drawn<T>(n), b = drawn<T>(n);
  std::vector<float> parts(1 + below(60), NAN);
  anywhere([&] { Kernels<T>::products(a.data(), b.data(), parts.data(), n, parts.size()); });
  double got = 0, want = 0, size = 0;
  for (float part : parts) got += part;
  for (size_t i = 0; i < n; ++i) want += (double)a[i] * (double)b[i], size += std::fabs((double)a[i] * (double)b[i]);
  check("products", 0, got, want, bound<float>(size));
}

int main() {
  const int rounds = 2000;
  for (int round = 0; round < rounds; ++round) {
    check_depthwise<float>(), check_depthwise<__half>();
    check_columns<float>(), check_columns<__half>();
    check_mixture<float>(), check_mixture<__half>();
  }
  std::printf("%d rounds of every kernel in f32 and f16 agree with plain loops\n", rounds);
}
