#ifndef VHOST_NET_CORE_SIGNAL_BLOCK_H_
#define VHOST_NET_CORE_SIGNAL_BLOCK_H_

#include <csignal>

namespace vhost_net {

/// Blocks every signal of the calling thread for its lifetime. An ioctl that waits for a page served by userfaultfd is
/// turned into a busy loop by an unblocked signal, because the wait ends and the access faults again.
class SignalBlock {
 public:
  SignalBlock() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalBlock() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalBlock(const SignalBlock&) = delete;
  SignalBlock& operator=(const SignalBlock&) = delete;

 private:
  sigset_t before_;
};

}  // namespace vhost_net

#endif
