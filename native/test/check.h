#ifndef VHOST_NET_TEST_CHECK_H_
#define VHOST_NET_TEST_CHECK_H_

#include <cstdio>
#include <functional>
#include <vector>

/// Checks that count: a failed one is reported with its place and the run goes on.

namespace vhost_net::test {

struct Counts {
  int passed = 0;
  int failed = 0;
  int skipped = 0;
};
Counts& counts();

struct Case {
  const char* name;
  void (*run)();
};
std::vector<Case>& cases();

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

inline bool Check(bool ok, const char* what, const char* file, int line) {
  if (ok) {
    counts().passed++;
  } else {
    counts().failed++;
    std::printf("FAILED %s:%d: %s\n", file, line, what);
  }
  return ok;
}

template <typename A, typename B>
bool CheckEqual(const A& a, const B& b, const char* what, const char* file, int line) {
  const bool ok = a == b;
  Check(ok, what, file, line);
  if (!ok) std::printf("  %lld != %lld\n", static_cast<long long>(a), static_cast<long long>(b));
  return ok;
}

/// Runs a job in a child process: the number of the signal that ended it, or 0.
int SignalOf(const std::function<void()>& job);
/// Open descriptors of this process.
int OpenFds();

}  // namespace vhost_net::test

#define CHECK(condition) ::vhost_net::test::Check((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQUAL(a, b) ::vhost_net::test::CheckEqual((a), (b), #a " == " #b, __FILE__, __LINE__)
#define SKIP(why) ((void)::vhost_net::test::counts().skipped++, (void)std::printf("  skipped: %s\n", why))
#define TEST(name)                                                   \
  static void name();                                                \
  static const ::vhost_net::test::Register name##_case(#name, name); \
  static void name()

#endif
