#include "core/fd_socket.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "core/mapping.h"
#include "core/socket.h"
#include "test/check.h"

namespace vhost_net {
namespace {

struct Pair {
  UniqueFd near, far;
  Pair() { CHECK_EQUAL(CreateSocketPair(&near, &far), 0); }

  Result Send(const std::string& text, const std::vector<int>& fds) {
    return SendWithDescriptors(near.get(), reinterpret_cast<const uint8_t*>(text.data()), text.size(), fds);
  }
  Result Receive(size_t length, size_t most, std::vector<UniqueFd>* fds) {
    uint8_t bytes[4096];
    return ReceiveWithDescriptors(far.get(), bytes, length, most, fds);
  }
};

ino_t Inode(int fd) {
  struct stat status = {};
  CHECK_EQUAL(fstat(fd, &status), 0);
  return status.st_ino;
}

}  // namespace

TEST(descriptors_arrive_in_order_with_the_first_byte) {
  Pair pair;
  UniqueFd one, two;
  CHECK_EQUAL(CreateMemfd("one", 4096, 0, &one), 0);
  CHECK_EQUAL(CreateMemfd("two", 4096, 0, &two), 0);
  std::vector<UniqueFd> fds;
  CHECK_EQUAL(pair.Receive(8, 8, &fds), -EAGAIN);
  CHECK_EQUAL(pair.Send("abcd", {one.get(), two.get()}), 4);
  CHECK_EQUAL(pair.Send("ef", {two.get()}), 2);
  CHECK_EQUAL(pair.Receive(1, 8, &fds), 1);
  CHECK_EQUAL(fds.size(), 2u);
  CHECK_EQUAL(Inode(fds[0].get()), Inode(one.get()));
  CHECK_EQUAL(Inode(fds[1].get()), Inode(two.get()));
  for (const UniqueFd& fd : fds) CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  // What is left of a message whose descriptors were taken does not keep a read from the next one, whose descriptors do.
  CHECK_EQUAL(pair.Send("gh", {one.get()}), 2);
  CHECK_EQUAL(pair.Receive(100, 8, &fds), 5);
  CHECK_EQUAL(fds.size(), 3u);
  CHECK_EQUAL(pair.Receive(100, 8, &fds), 2);
  CHECK_EQUAL(fds.size(), 4u);
  pair.near.Reset();
  CHECK_EQUAL(pair.Receive(1, 8, &fds), 0);
}

TEST(more_descriptors_than_wanted_are_closed) {
  const int before = test::OpenFds();
  {
    Pair pair;
    UniqueFd file;
    CHECK_EQUAL(OpenFd("/dev/null", O_RDONLY, &file), 0);
    for (size_t most : {0, 1, 2, 3}) {
      std::vector<UniqueFd> fds;
      CHECK_EQUAL(pair.Send("x", std::vector<int>(4, file.get())), 1);
      CHECK_EQUAL(pair.Receive(1, most, &fds), -EMSGSIZE);
      CHECK(fds.empty());
      CHECK_EQUAL(test::OpenFds(), before + 3);
    }
    std::vector<UniqueFd> fds;
    CHECK_EQUAL(pair.Send("x", std::vector<int>(4, file.get())), 1);
    CHECK_EQUAL(pair.Receive(1, 4, &fds), 1);
    CHECK_EQUAL(fds.size(), 4u);
  }
  CHECK_EQUAL(test::OpenFds(), before);
}

TEST(as_many_descriptors_as_a_message_carries) {
  Pair pair;
  UniqueFd file;
  CHECK_EQUAL(OpenFd("/dev/null", O_RDONLY, &file), 0);
  std::vector<UniqueFd> fds;
  CHECK_EQUAL(pair.Send("x", std::vector<int>(kMostDescriptors + 1, file.get())), -EINVAL);
  CHECK_EQUAL(pair.Send("", {file.get()}), -EINVAL);
  CHECK_EQUAL(pair.Send("x", {-1}), -EBADF);
  CHECK_EQUAL(pair.Receive(1, kMostDescriptors + 1, &fds), -EINVAL);
  CHECK_EQUAL(pair.Send("x", std::vector<int>(kMostDescriptors, file.get())), 1);
  CHECK_EQUAL(pair.Receive(1, kMostDescriptors, &fds), 1);
  CHECK_EQUAL(fds.size(), kMostDescriptors);
}

TEST(no_number_for_a_descriptor_is_told_from_too_many) {
  const int before = test::OpenFds();
  {
    Pair pair;
    CHECK_EQUAL(pair.Send("x", {pair.near.get(), pair.near.get(), pair.near.get(), pair.near.get()}), 1);
    rlimit limit = {};
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlimit low = limit;
    // Room for two more, since the lowest numbers are in use.
    UniqueFd lowest;
    CHECK_EQUAL(OpenFd("/dev/null", O_RDONLY, &lowest), 0);
    low.rlim_cur = static_cast<rlim_t>(lowest.get()) + 2;
    lowest.Reset();
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &low), 0);
    std::vector<UniqueFd> fds;
    CHECK_EQUAL(pair.Receive(1, 8, &fds), -EMFILE);
    CHECK(fds.empty());
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  CHECK_EQUAL(test::OpenFds(), before);
}

TEST(a_peer_that_is_gone_is_an_error_and_no_signal) {
  Pair pair;
  pair.far.Reset();
  CHECK_EQUAL(pair.Send("x", {}), -EPIPE);
  uint8_t byte;
  std::vector<UniqueFd> fds;
  UniqueFd file;
  CHECK_EQUAL(OpenFd("/dev/null", O_RDONLY, &file), 0);
  CHECK_EQUAL(ReceiveWithDescriptors(file.get(), &byte, 1, 1, &fds), -ENOTSOCK);
}

TEST(seals_of_memfds) {
  UniqueFd fd;
  CHECK_EQUAL(CreateMemfd("sealed", 4096, 0, &fd), 0);
  CHECK_EQUAL(GetSeals(fd.get()), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  UniqueFd open_end(memfd_create("unsealed", MFD_ALLOW_SEALING));
  CHECK_EQUAL(GetSeals(open_end.get()), 0);
  CHECK_EQUAL(OpenFd("/dev/null", O_RDONLY, &fd), 0);
  CHECK_EQUAL(GetSeals(fd.get()), -EINVAL);
  CHECK_EQUAL(GetSeals(-1), -EBADF);
}

}  // namespace vhost_net
