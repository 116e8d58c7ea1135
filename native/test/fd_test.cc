#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>

#include "core/event_fd.h"
#include "core/signal_block.h"
#include "core/unique_fd.h"
#include "test/check.h"

namespace vhost_net {

TEST(unique_fd_closes_once_and_moves) {
  const int before = test::OpenFds();
  int number;
  {
    UniqueFd first;
    CHECK_EQUAL(OpenFd("/dev/null", O_RDONLY, &first), 0);
    number = first.get();
    CHECK((fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
    UniqueFd second(std::move(first));
    CHECK_EQUAL(first.get(), -1);
    CHECK_EQUAL(second.get(), number);
    UniqueFd third;
    third = std::move(second);
    CHECK_EQUAL(third.get(), number);
  }
  CHECK(fcntl(number, F_GETFD) < 0);
  CHECK_EQUAL(test::OpenFds(), before);
}

TEST(adopt_and_duplicate) {
  UniqueFd fd;
  CHECK_EQUAL(AdoptFd(-1, &fd), -EBADF);
  CHECK_EQUAL(AdoptFd(1 << 20, &fd), -EBADF);
  CHECK_EQUAL(DuplicateFd(-1, &fd), -EBADF);
  CHECK_EQUAL(OpenFd("/nonexistent", O_RDONLY, &fd), -ENOENT);
  CHECK(!fd);
  const int raw = open("/dev/null", O_RDONLY);
  CHECK_EQUAL(fcntl(raw, F_GETFD), 0);
  CHECK_EQUAL(AdoptFd(raw, &fd), 0);
  CHECK_EQUAL(fcntl(raw, F_GETFD), FD_CLOEXEC);
  UniqueFd copy;
  CHECK_EQUAL(DuplicateFd(fd.get(), &copy), 0);
  CHECK_EQUAL(fcntl(copy.get(), F_GETFD), FD_CLOEXEC);
  CHECK_EQUAL(SetNonblocking(fd.get(), true), 0);
  CHECK((fcntl(copy.get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK_EQUAL(SetNonblocking(copy.get(), false), 0);
  CHECK((fcntl(fd.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST(event_fd_counts_and_never_blocks) {
  UniqueFd fd;
  uint64_t value = 0;
  CHECK_EQUAL(CreateEventFd(2, 0, &fd), 0);
  CHECK_EQUAL(SignalEventFd(fd.get()), 0);
  CHECK_EQUAL(DrainEventFd(fd.get(), &value), 0);
  CHECK_EQUAL(value, 3u);
  CHECK_EQUAL(DrainEventFd(fd.get(), &value), -EAGAIN);
  CHECK_EQUAL(CreateEventFd(0, ~0, &fd), -EINVAL);

  UniqueFd blocking(eventfd(0, EFD_CLOEXEC));
  CHECK_EQUAL(DrainEventFd(blocking.get(), &value), -EAGAIN);
  CHECK_EQUAL(SignalEventFd(blocking.get()), 0);
  CHECK_EQUAL(DrainEventFd(blocking.get(), &value), 0);
  CHECK_EQUAL(value, 1u);
  CHECK_EQUAL(SignalEventFd(-1), -EBADF);
  CHECK_EQUAL(DrainEventFd(-1, &value), -EBADF);

  const uint64_t full = ~uint64_t{0} - 1;
  CHECK_EQUAL(CreateEventFd(0, 0, &fd), 0);
  CHECK_EQUAL(write(fd.get(), &full, sizeof full), static_cast<ssize_t>(sizeof full));
  CHECK_EQUAL(SignalEventFd(fd.get()), -EAGAIN);
}

TEST(signals_are_blocked_and_restored) {
  sigset_t before, inside, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  {
    SignalBlock block;
    pthread_sigmask(SIG_SETMASK, nullptr, &inside);
    CHECK(sigismember(&inside, SIGUSR1) == 1 && sigismember(&inside, SIGTERM) == 1);
  }
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  CHECK_EQUAL(sigismember(&after, SIGUSR1), sigismember(&before, SIGUSR1));
  CHECK_EQUAL(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}

}  // namespace vhost_net
