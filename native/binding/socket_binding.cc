#include <iterator>

#include "binding/async_call.h"
#include "core/fd_socket.h"
#include "core/socket.h"

namespace vhost_net::binding {
namespace {

struct OpenedSocket {
  Result result = 0;
  UniqueFd fd;
};

napi_value SocketCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto netns = args.StringOrNull("netns");
  const int family = args.Int32("family");
  const int type = args.Int32("type");
  if (args.failed()) return nullptr;
  return RunAsync(
      env, "socket",
      [netns = std::move(netns), family, type]() {
        OpenedSocket opened;
        opened.result = CreateSocket(netns ? netns->c_str() : nullptr, family, type, &opened.fd);
        return opened;
      },
      [](napi_env done_env, OpenedSocket& opened) {
        return opened.result < 0 ? ToNumber(done_env, opened.result) : MakeFdHandle(done_env, std::move(opened.fd));
      });
}

napi_value SocketPair(napi_env env, napi_callback_info) {
  UniqueFd ends[2];
  const Result result = CreateSocketPair(&ends[0], &ends[1]);
  if (result < 0) return ToNumber(env, result);
  napi_value list = nullptr;
  if (napi_create_array_with_length(env, 2, &list) != napi_ok) return nullptr;
  for (uint32_t i = 0; i < 2; i++) {
    napi_value fd = MakeFdHandle(env, std::move(ends[i]));
    if (fd == nullptr || napi_set_element(env, list, i, fd) != napi_ok) return nullptr;
  }
  return list;
}

/// fd, host, port.
template <Result (*Call)(int, const SocketName&)>
napi_value WithName(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  SocketName name;
  name.host = args.String("host");
  const uint32_t port = args.Uint32("port");
  if (!args.failed() && port > UINT16_MAX) args.RangeError("port", "an integer from 0 to 65535");
  if (args.failed()) return nullptr;
  name.port = static_cast<uint16_t>(port);
  return ToNumber(env, handle->file == nullptr ? -EBADF : Call(handle->file->fd.get(), name));
}

template <Result (*Call)(int, SocketName*)>
napi_value NameOf(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  SocketName name;
  const Result result = handle->file == nullptr ? -EBADF : Call(handle->file->fd.get(), &name);
  if (result < 0) return ToNumber(env, result);
  napi_value object = nullptr, host = nullptr;
  if (napi_create_object(env, &object) != napi_ok ||
      napi_create_string_utf8(env, name.host.data(), name.host.size(), &host) != napi_ok) {
    return nullptr;
  }
  napi_set_named_property(env, object, "host", host);
  napi_set_named_property(env, object, "port", ToNumber(env, name.port));
  return object;
}

napi_value SocketListen(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const int backlog = args.Int32("backlog");
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->file == nullptr ? -EBADF : ListenSocket(handle->file->fd.get(), backlog));
}

napi_value SocketAccept(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  UniqueFd fd;
  const Result result = AcceptSocket(handle->file->fd.get(), &fd);
  return result < 0 ? ToNumber(env, result) : MakeFdHandle(env, std::move(fd));
}

napi_value SocketGetOption(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const int level = args.Int32("level");
  const int option = args.Int32("option");
  if (args.failed()) return nullptr;
  int value = 0;
  const Result result =
      handle->file == nullptr ? -EBADF : GetSocketOption(handle->file->fd.get(), level, option, &value);
  return ToNumber(env, result < 0 ? result : value);
}

napi_value SocketSetOption(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const int level = args.Int32("level");
  const int option = args.Int32("option");
  const int value = args.Int32("value");
  if (args.failed()) return nullptr;
  return ToNumber(env,
                  handle->file == nullptr ? -EBADF : SetSocketOption(handle->file->fd.get(), level, option, value));
}

napi_value SocketSendDescriptors(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const auto bytes = args.Bytes("bytes");
  const auto files = args.Files("fds");
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  std::vector<int> fds;
  for (const auto& file : files) {
    if (file == nullptr) return ToNumber(env, -EBADF);
    fds.push_back(file->fd.get());
  }
  return ToNumber(env, SendWithDescriptors(handle->file->fd.get(), bytes.data, bytes.length, fds));
}

napi_value SocketReceiveDescriptors(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const auto target = args.Bytes("target");
  const uint32_t most = args.Uint32("most");
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  std::vector<UniqueFd> fds;
  const Result result = ReceiveWithDescriptors(handle->file->fd.get(), target.data, target.length, most, &fds);
  if (result < 0) return ToNumber(env, result);
  napi_value object = nullptr, list = nullptr;
  if (napi_create_object(env, &object) != napi_ok ||
      napi_create_array_with_length(env, fds.size(), &list) != napi_ok) {
    return nullptr;
  }
  for (uint32_t i = 0; i < fds.size(); i++) {
    napi_value fd = MakeFdHandle(env, std::move(fds[i]));
    if (fd == nullptr || napi_set_element(env, list, i, fd) != napi_ok) return nullptr;
  }
  napi_set_named_property(env, object, "bytes", ToNumber(env, result));
  napi_set_named_property(env, object, "fds", list);
  return object;
}

napi_value FdSeals(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->file == nullptr ? -EBADF : GetSeals(handle->file->fd.get()));
}

constexpr Entry kEntries[] = {
    {"socketCreate", SocketCreate},
    {"socketPair", SocketPair},
    {"socketBind", WithName<BindSocket>},
    {"socketConnect", WithName<ConnectSocket>},
    {"socketListen", SocketListen},
    {"socketAccept", SocketAccept},
    {"socketLocalName", NameOf<LocalName>},
    {"socketPeerName", NameOf<PeerName>},
    {"socketGetOption", SocketGetOption},
    {"socketSetOption", SocketSetOption},
    {"socketSendDescriptors", SocketSendDescriptors},
    {"socketReceiveDescriptors", SocketReceiveDescriptors},
    {"fdSeals", FdSeals},
};

}  // namespace

void DefineSocket(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
