#ifndef VHOST_NET_FUZZ_INPUT_H_
#define VHOST_NET_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

/// Reads values from a fuzzer's bytes; zeros when they have run out.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return at_ >= size_; }

  template <typename T>
  T Take() {
    T value{};
    const size_t left = size_ - at_;
    const size_t count = left < sizeof value ? left : sizeof value;
    if (count > 0) std::memcpy(&value, data_ + at_, count);
    at_ += count;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

/// A property that must hold for every input.
#define MUST(condition)                                                                  \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (0)

#endif
