#include <iterator>

#include "binding/vhost_call.h"

namespace vhost_net::binding {
namespace {

template <Result (VhostNet::*Method)(uint32_t)>
napi_value Get(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint32_t index = args.Uint32("index");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "vring", handle, [index](VhostNet& device) { return (device.*Method)(index); });
}

template <Result (VhostNet::*Method)(uint32_t, uint32_t)>
napi_value Set(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint32_t index = args.Uint32("index");
  const uint32_t value = args.Uint32("value");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "vring", handle, [index, value](VhostNet& device) { return (device.*Method)(index, value); });
}

template <Result (VhostNet::*Method)(uint32_t, int)>
napi_value SetFile(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint32_t index = args.Uint32("index");
  const int number = args.Int32("fd");
  if (args.failed()) return nullptr;
  LentFd fd(number);
  if (fd.error() < 0) return Resolved(env, fd.error());
  return RunOnVhost(env, "vring", handle,
                    [index, fd = std::move(fd)](VhostNet& device) { return (device.*Method)(index, fd.number()); });
}

napi_value SetVringAddr(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  VringAddr addr;
  addr.index = args.Uint32("index");
  addr.flags = args.Uint32("flags");
  addr.desc_user_addr = args.U64("desc");
  addr.used_user_addr = args.U64("used");
  addr.avail_user_addr = args.U64("avail");
  addr.log_guest_addr = args.U64("logGuestAddr");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "VHOST_SET_VRING_ADDR", handle,
                    [addr](VhostNet& device) { return device.SetVringAddr(addr); });
}

constexpr Entry kEntries[] = {
    {"vhostSetVringNum", Set<&VhostNet::SetVringNum>},
    {"vhostSetVringBase", Set<&VhostNet::SetVringBase>},
    {"vhostGetVringBase", Get<&VhostNet::GetVringBase>},
    {"vhostSetVringAddr", SetVringAddr},
    {"vhostSetVringKick", SetFile<&VhostNet::SetVringKick>},
    {"vhostSetVringCall", SetFile<&VhostNet::SetVringCall>},
    {"vhostSetVringErr", SetFile<&VhostNet::SetVringErr>},
    {"vhostSetVringEndian", Set<&VhostNet::SetVringEndian>},
    {"vhostGetVringEndian", Get<&VhostNet::GetVringEndian>},
    {"vhostSetVringBusyloopTimeout", Set<&VhostNet::SetVringBusyloopTimeout>},
    {"vhostGetVringBusyloopTimeout", Get<&VhostNet::GetVringBusyloopTimeout>},
    {"vhostNetSetBackend", SetFile<&VhostNet::NetSetBackend>},
    {"vhostAttachVringWorker", Set<&VhostNet::AttachVringWorker>},
    {"vhostGetVringWorker", Get<&VhostNet::GetVringWorker>},
};

}  // namespace

void DefineVring(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
