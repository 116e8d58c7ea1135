#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

/// Drives a fuzz target where there is no libFuzzer: `target RUNS SEED` with random inputs, or `target FILE` with one
/// input.
int main(int argc, char** argv) {
  if (argc == 2) {
    std::ifstream file(argv[1], std::ios::binary);
    const std::vector<char> input((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    return LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  }
  const long runs = argc > 1 ? std::atol(argv[1]) : 10000;
  const unsigned long seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
  std::mt19937_64 random(seed);
  std::vector<uint8_t> input;
  for (long run = 0; run < runs; run++) {
    input.resize(random() % 512);
    // Few distinct bytes make long runs and repeated values, where the edges are.
    const uint64_t mask = run % 2 == 0 ? 0xff : 0x81;
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random() & mask);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%ld inputs from seed %lu\n", runs, seed);
  return 0;
}
