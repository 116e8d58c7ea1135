#ifndef VHOST_NET_BINDING_VHOST_CALL_H_
#define VHOST_NET_BINDING_VHOST_CALL_H_

#include <climits>

#include "binding/async_call.h"

namespace vhost_net::binding {

/// Closes the device on the thread pool and settles everybody who waits for it. Nothing may be running.
void BeginClose(napi_env env, const std::shared_ptr<VhostSlot>& slot);

/// Runs `work(VhostNet&)` on the thread pool. The device is closed only after all of these have answered.
template <typename Work, typename Answer>
napi_value RunOnVhost(napi_env env, const char* name, VhostHandle* handle, Work work, Answer answer) {
  auto slot = handle->slot;
  if (slot->state != VhostSlot::kOpen) return Resolved(env, -EBADF);
  slot->running++;
  napi_value promise = RunAsync(
      env, name, [slot, work = std::move(work)]() mutable { return work(slot->device); },
      [slot, answer = std::move(answer)](napi_env done_env, auto& outcome) mutable {
        if (--slot->running == 0 && slot->state == VhostSlot::kClosing) BeginClose(done_env, slot);
        return answer(done_env, outcome);
      });
  if (promise == nullptr) slot->running--;
  return promise;
}

/// RunOnVhost for work that answers a Result.
template <typename Work>
napi_value RunOnVhost(napi_env env, const char* name, VhostHandle* handle, Work work) {
  return RunOnVhost(env, name, handle, std::move(work),
                    [](napi_env done_env, Result& result) { return ToNumber(done_env, result); });
}

/// A descriptor number on its way to an ioctl: duplicated at once, because the number may be closed, and given to
/// another file, before a pool thread gets to it. The kernel looks at the file and not at the number.
class LentFd {
 public:
  explicit LentFd(int number) : number_(number) {
    if (number < 0) return;
    const Result result = DuplicateFd(number, &copy_);
    if (result == -EBADF) {
      number_ = kNeverOpen;
    } else if (result < 0) {
      error_ = result;
    } else {
      number_ = copy_.get();
    }
  }

  /// Why it could not be duplicated, or 0.
  Result error() const { return error_; }
  int number() const { return number_; }

 private:
  /// Above every limit of open files: the kernel says about it what it says about any closed descriptor.
  static constexpr int kNeverOpen = INT_MAX;

  int number_;
  Result error_ = 0;
  UniqueFd copy_;
};

}  // namespace vhost_net::binding

#endif
