#include <uv.h>

#include <iterator>

#include "binding/args.h"

namespace vhost_net::binding {

/// A uv_poll_t and what it keeps alive. It keeps its own handle alive as well until it is stopped: a poll that nobody
/// remembers goes on calling back, as a socket would. The last thing libuv says (the close callback) deletes it.
///
/// The cleanup hook is asynchronous: the environment waits until it is removed in the close callback. A poll left open
/// when a Worker's loop is closed aborts the whole process.
struct Poll {
  uv_poll_t poll;
  napi_env env;
  std::shared_ptr<OpenFile> file;
  /// Only when the loop watches the descriptor already, which it can once.
  UniqueFd duplicate;
  PollHandle* handle;
  napi_ref handle_reference = nullptr;
  napi_ref callback = nullptr;
  napi_async_context context = nullptr;
  napi_async_cleanup_hook_handle hook = nullptr;
};

namespace {

void OnClosed(uv_handle_t* handle) {
  auto* poll = static_cast<Poll*>(handle->data);
  if (poll->context != nullptr) napi_async_destroy(poll->env, poll->context);
  if (poll->hook != nullptr) napi_remove_async_cleanup_hook(poll->hook);
  delete poll;
}

/// Takes the poll off its handle and begins to close it. Done once: afterwards nobody can reach it but libuv.
void Stop(Poll* poll) {
  poll->handle->poll = nullptr;
  uv_poll_stop(&poll->poll);
  if (poll->callback != nullptr) napi_delete_reference(poll->env, poll->callback);
  if (poll->handle_reference != nullptr) napi_delete_reference(poll->env, poll->handle_reference);
  uv_close(reinterpret_cast<uv_handle_t*>(&poll->poll), OnClosed);
}

void OnCleanup(napi_async_cleanup_hook_handle hook, void* argument) {
  auto* poll = static_cast<Poll*>(argument);
  // One that is being closed already removes the hook in its close callback.
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&poll->poll)) == 0) Stop(poll);
}

void OnEvents(uv_poll_t* handle, int status, int events) {
  auto* poll = static_cast<Poll*>(handle->data);
  napi_env env = poll->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback = nullptr, receiver = nullptr;
  napi_value arguments[2] = {ToNumber(env, status), ToNumber(env, events)};
  if (napi_get_reference_value(env, poll->callback, &callback) == napi_ok && callback != nullptr &&
      napi_get_global(env, &receiver) == napi_ok) {
    // The callback may stop the poll: nothing of it is touched afterwards.
    const napi_status called = napi_make_callback(env, poll->context, receiver, callback, 2, arguments, nullptr);
    napi_value error = nullptr;
    if (called == napi_pending_exception && napi_get_and_clear_last_exception(env, &error) == napi_ok) {
      napi_fatal_exception(env, error);
    }
  }
  napi_close_handle_scope(env, scope);
}

int Init(uv_loop_t* loop, Poll* poll, int fd) {
  int error = uv_poll_init(loop, &poll->poll, fd);
  if (error != UV_EEXIST) return error;
  const Result duplicated = DuplicateFd(fd, &poll->duplicate);
  return duplicated < 0 ? static_cast<int>(duplicated) : uv_poll_init(loop, &poll->poll, poll->duplicate.get());
}

napi_value PollStart(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* file = args.Handle<FdHandle>();
  const int events = args.Int32("events");
  napi_value callback = args.Function("callback");
  constexpr int kAll = UV_READABLE | UV_WRITABLE | UV_DISCONNECT | UV_PRIORITIZED;
  if (!args.failed() && (events == 0 || (events & ~kAll) != 0)) args.RangeError("events", "a sum of 1, 2, 4 and 8");
  if (args.failed()) return nullptr;
  if (file->file == nullptr) return ToNumber(env, -EBADF);
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return nullptr;

  auto owned = std::make_unique<PollHandle>();
  PollHandle* handle = owned.get();
  napi_value external = MakeHandle(env, std::move(owned));
  if (external == nullptr) return nullptr;
  auto poll = std::make_unique<Poll>();
  const int error = Init(loop, poll.get(), file->file->fd.get());
  if (error < 0) return ToNumber(env, error);

  Poll* started = poll.release();
  started->poll.data = started;
  started->env = env;
  started->file = file->file;
  started->handle = handle;
  handle->poll = started;
  napi_value name = nullptr;
  const bool ready = napi_create_string_utf8(env, "vhostNetPoll", NAPI_AUTO_LENGTH, &name) == napi_ok &&
                     napi_create_reference(env, callback, 1, &started->callback) == napi_ok &&
                     napi_create_reference(env, external, 1, &started->handle_reference) == napi_ok &&
                     napi_async_init(env, nullptr, name, &started->context) == napi_ok &&
                     napi_add_async_cleanup_hook(env, OnCleanup, started, &started->hook) == napi_ok;
  const int result = ready ? uv_poll_start(&started->poll, events, OnEvents) : 0;
  if (ready && result == 0) return external;
  Stop(started);
  return ready ? ToNumber(env, result) : nullptr;
}

napi_value PollStop(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<PollHandle>();
  if (args.failed()) return nullptr;
  if (handle->poll != nullptr) Stop(handle->poll);
  return Undefined(env);
}

napi_value PollRef(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<PollHandle>();
  const bool ref = args.Boolean("ref");
  if (args.failed()) return nullptr;
  if (handle->poll != nullptr) {
    auto* uv_handle = reinterpret_cast<uv_handle_t*>(&handle->poll->poll);
    ref ? uv_ref(uv_handle) : uv_unref(uv_handle);
  }
  return Undefined(env);
}

constexpr Entry kEntries[] = {{"pollStart", PollStart}, {"pollStop", PollStop}, {"pollRef", PollRef}};

}  // namespace

void Release(napi_env, PollHandle* handle) {
  if (handle->poll != nullptr) Stop(handle->poll);
}

void DefinePoll(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
