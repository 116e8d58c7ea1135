#include <algorithm>
#include <iterator>

#include "binding/async_call.h"
#include "core/event_fd.h"
#include "core/netns.h"
#include "core/page_io.h"

namespace vhost_net::binding {
namespace {

napi_value FdOrErrno(napi_env env, Result result, UniqueFd fd) {
  return result < 0 ? ToNumber(env, result) : MakeFdHandle(env, std::move(fd));
}

napi_value FdAdopt(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const int number = args.Int32("fd");
  if (args.failed()) return nullptr;
  UniqueFd fd;
  const Result result = AdoptFd(number, &fd);
  return FdOrErrno(env, result, std::move(fd));
}

napi_value FdDup(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  UniqueFd fd;
  const Result result = DuplicateFd(handle->file->fd.get(), &fd);
  if (result < 0) return ToNumber(env, result);
  auto copy = std::make_unique<FdHandle>();
  copy->file = std::make_shared<OpenFile>(std::move(fd));
  copy->file->filter = handle->file->filter;
  return MakeHandle(env, std::move(copy));
}

napi_value FdOpen(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const std::string path = args.String("path");
  const int flags = args.Int32("flags");
  if (args.failed()) return nullptr;
  UniqueFd fd;
  const Result result = OpenFd(path.c_str(), flags, &fd);
  return FdOrErrno(env, result, std::move(fd));
}

struct OpenedFile {
  Result result;
  UniqueFd fd;
};

napi_value NetnsOpen(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto netns = args.StringOrNull("netns");
  std::string path = args.String("path");
  const int flags = args.Int32("flags");
  if (args.failed()) return nullptr;
  return RunAsync(
      env, "open",
      [netns = std::move(netns), path = std::move(path), flags]() {
        OpenedFile file;
        file.result = RunInNetns(netns ? netns->c_str() : nullptr,
                                 [&]() { return OpenFd(path.c_str(), flags, &file.fd); });
        return file;
      },
      [](napi_env done_env, OpenedFile& file) { return FdOrErrno(done_env, file.result, std::move(file.fd)); });
}

napi_value FdNumber(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->file == nullptr ? -EBADF : handle->file->fd.get());
}

napi_value FdRelease(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  // Whoever else holds it would close, or use, a number that is somebody else's by then.
  if (handle->file.use_count() > 1) return ToNumber(env, -EBUSY);
  const int number = handle->file->fd.Release();
  handle->file.reset();
  return ToNumber(env, number);
}

napi_value FdSetNonblocking(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const bool on = args.Boolean("on");
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->file == nullptr ? -EBADF : SetNonblocking(handle->file->fd.get(), on));
}

napi_value FdClose(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  handle->file.reset();
  return ToNumber(env, 0);
}

napi_value FdCloseAsync(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return Resolved(env, 0);
  return RunAsync(env, "close", [file = std::move(handle->file)]() mutable -> Result {
    file.reset();
    return 0;
  });
}

napi_value FdPread(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const auto target = args.Bytes("target");
  const uint64_t position = args.Size("position");
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  return ToNumber(env, ReadAt(handle->file->fd.get(), target.data, target.length, position));
}

napi_value EventFdCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const uint32_t initial = args.Uint32("initial");
  const int flags = args.Int32("flags");
  if (args.failed()) return nullptr;
  UniqueFd fd;
  const Result result = CreateEventFd(initial, flags, &fd);
  return FdOrErrno(env, result, std::move(fd));
}

napi_value EventFdSignal(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->file == nullptr ? -EBADF : SignalEventFd(handle->file->fd.get()));
}

napi_value EventFdDrain(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  uint64_t value = 0;
  const Result result = DrainEventFd(handle->file->fd.get(), &value);
  if (result < 0) return ToNumber(env, result);
  // The counter may exceed what int64 holds; a double is exact to 2^53 and right in size above.
  napi_value number = nullptr;
  napi_create_double(env, static_cast<double>(value), &number);
  return number;
}

constexpr Entry kEntries[] = {
    {"fdAdopt", FdAdopt},
    {"fdDup", FdDup},
    {"fdOpen", FdOpen},
    {"netnsOpen", NetnsOpen},
    {"fdNumber", FdNumber},
    {"fdRelease", FdRelease},
    {"fdClose", FdClose},
    {"fdCloseAsync", FdCloseAsync},
    {"fdPread", FdPread},
    {"fdSetNonblocking", FdSetNonblocking},
    {"eventFdCreate", EventFdCreate},
    {"eventFdSignal", EventFdSignal},
    {"eventFdDrain", EventFdDrain},
};

}  // namespace

void DefineDescriptors(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
