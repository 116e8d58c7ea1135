#ifndef VHOST_NET_CORE_UNIQUE_FD_H_
#define VHOST_NET_CORE_UNIQUE_FD_H_

#include <utility>

#include "core/result.h"

namespace vhost_net {

/// Owns one file descriptor and closes it in its destructor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

  /// The number, which the caller owns from now on.
  int Release() { return std::exchange(fd_, -1); }
  /// Closes what is owned. Linux frees the number even when close(2) reports an error, so it is never tried twice.
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

/// Takes a descriptor of this process and sets FD_CLOEXEC. -EBADF.
Result AdoptFd(int fd, UniqueFd* out);
/// A second descriptor of the same open file: F_DUPFD_CLOEXEC.
Result DuplicateFd(int fd, UniqueFd* out);
/// open(2) with O_CLOEXEC added.
Result OpenFd(const char* path, int flags, UniqueFd* out);
/// Sets or clears O_NONBLOCK, which belongs to the open file: every descriptor of it is affected.
Result SetNonblocking(int fd, bool on);

}  // namespace vhost_net

#endif
