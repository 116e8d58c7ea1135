#include <dirent.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "test/check.h"

namespace vhost_net::test {

Counts& counts() {
  static Counts counts;
  return counts;
}

std::vector<Case>& cases() {
  static std::vector<Case> cases;
  return cases;
}

int SignalOf(const std::function<void()>& job) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    // A sanitizer would report the fault and exit: the plain disposition shows the signal.
    for (int signal : {SIGSEGV, SIGBUS, SIGABRT}) std::signal(signal, SIG_DFL);
    const rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    job();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int OpenFds() {
  DIR* folder = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(folder) != nullptr) count++;
  closedir(folder);
  return count;
}

}  // namespace vhost_net::test

/// Runs every case, or those whose name contains the argument.
int main(int argc, char** argv) {
  using namespace vhost_net::test;
  for (const Case& test : cases()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    const Counts before = counts();
    test.run();
    std::printf("%s: %d passed, %d failed\n", test.name, counts().passed - before.passed,
                counts().failed - before.failed);
  }
  std::printf("%d passed, %d failed, %d skipped\n", counts().passed, counts().failed, counts().skipped);
  return counts().failed == 0 && counts().passed > 0 ? 0 : 1;
}
