#ifndef VHOST_NET_BINDING_ASYNC_CALL_H_
#define VHOST_NET_BINDING_ASYNC_CALL_H_

#include <napi.h>

#include <memory>
#include <optional>
#include <type_traits>

#include "binding/args.h"
#include "core/signal_block.h"

namespace vhost_net::binding {

/// Runs `work` on the thread pool with all signals blocked, then `done` with its result on the environment's thread.
/// `work` is destroyed on the pool thread, so that a descriptor or mapping whose last reference it holds is closed or
/// unmapped there.
template <typename Work, typename Done>
class PoolCall {
 public:
  using Outcome = std::invoke_result_t<Work&>;

  /// False with a JavaScript exception pending: `done` is then never called.
  static bool Queue(napi_env env, const char* name, Work work, Done done) {
    auto call = std::unique_ptr<PoolCall>(new PoolCall(std::move(work), std::move(done)));
    napi_value resource_name;
    if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource_name) != napi_ok) return false;
    if (napi_create_async_work(env, nullptr, resource_name, Execute, Complete, call.get(), &call->work_item_) !=
        napi_ok) {
      return false;
    }
    if (napi_queue_async_work(env, call->work_item_) != napi_ok) {
      napi_delete_async_work(env, call->work_item_);
      return false;
    }
    call.release();
    return true;
  }

 private:
  PoolCall(Work work, Done done) : work_(std::move(work)), done_(std::move(done)) {}

  static void Execute(napi_env, void* data) {
    auto* call = static_cast<PoolCall*>(data);
    SignalBlock block;
    call->outcome_.emplace((*call->work_)());
    call->work_.reset();
  }

  static void Complete(napi_env env, napi_status, void* data) {
    std::unique_ptr<PoolCall> call(static_cast<PoolCall*>(data));
    call->done_(env, *call->outcome_);
    napi_delete_async_work(env, call->work_item_);
  }

  std::optional<Work> work_;
  Done done_;
  std::optional<Outcome> outcome_;
  napi_async_work work_item_ = nullptr;
};

/// Resolves, or rejects with the exception that is pending because no value could be made.
inline void Settle(napi_env env, napi_deferred deferred, napi_value value) {
  if (value != nullptr) {
    napi_resolve_deferred(env, deferred, value);
    return;
  }
  napi_value error = nullptr;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_reject_deferred(env, deferred, error);
}

/// Runs `work` on the thread pool; the promise resolves with what `answer(env, result)` makes of its result. `answer`
/// is called even when the environment is going away and no JavaScript can run any more.
template <typename Work, typename Answer>
napi_value RunAsync(napi_env env, const char* name, Work work, Answer answer) {
  napi_deferred deferred;
  napi_value promise;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return nullptr;
  auto done = [deferred, answer = std::move(answer)](napi_env done_env, auto& outcome) mutable {
    Settle(done_env, deferred, answer(done_env, outcome));
  };
  using Call = PoolCall<Work, decltype(done)>;
  return Call::Queue(env, name, std::move(work), std::move(done)) ? promise : nullptr;
}

/// RunAsync for work that answers a Result, which becomes a number.
template <typename Work>
napi_value RunAsync(napi_env env, const char* name, Work work) {
  return RunAsync(env, name, std::move(work),
                  [](napi_env done_env, Result& result) { return ToNumber(done_env, result); });
}

/// A promise that is resolved already: for what is refused before any system call.
inline napi_value Resolved(napi_env env, Result result) {
  napi_deferred deferred;
  napi_value promise;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return nullptr;
  Settle(env, deferred, ToNumber(env, result));
  return promise;
}

/// Runs `work(OpenFile&)`, which answers a Result, on the thread pool; the file stays open until it has returned.
template <typename Work>
napi_value RunOnFile(napi_env env, const char* name, FdHandle* handle, Work work) {
  if (handle->file == nullptr) return Resolved(env, -EBADF);
  return RunAsync(env, name, [file = handle->file, work = std::move(work)]() mutable -> Result { return work(*file); });
}

}  // namespace vhost_net::binding

#endif
