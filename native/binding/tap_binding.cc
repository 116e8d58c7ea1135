#include <iterator>

#include "binding/async_call.h"
#include "core/netdev.h"
#include "core/netns.h"
#include "core/tap.h"

namespace vhost_net::binding {
namespace {

const char* Path(const std::optional<std::string>& path) { return path.has_value() ? path->c_str() : nullptr; }

napi_value ToString(napi_env env, const std::string& text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text.c_str(), text.size(), &value);
  return value;
}

napi_value ToBytes(napi_env env, const std::vector<uint8_t>& bytes) {
  napi_value buffer = nullptr, array = nullptr;
  void* data = nullptr;
  if (napi_create_arraybuffer(env, bytes.size(), &data, &buffer) != napi_ok) return nullptr;
  std::copy(bytes.begin(), bytes.end(), static_cast<uint8_t*>(data));
  napi_create_typedarray(env, napi_uint8_array, bytes.size(), buffer, 0, &array);
  return array;
}

struct OpenedTap {
  Result result = 0;
  UniqueFd fd;
  std::string name;
};

napi_value TapOpen(napi_env env, napi_callback_info info) {
  Args args(env, info);
  std::string device = args.String("device");
  auto netns = args.StringOrNull("netns");
  std::string name = args.String("name");
  const int flags = args.Int32("flags");
  if (args.failed()) return nullptr;
  return RunAsync(
      env, "TUNSETIFF",
      [device = std::move(device), netns = std::move(netns), name = std::move(name), flags]() {
        OpenedTap tap;
        tap.result = OpenTap(device.c_str(), Path(netns), name.c_str(), flags, &tap.fd, &tap.name);
        return tap;
      },
      [](napi_env done_env, OpenedTap& tap) -> napi_value {
        if (tap.result < 0) return ToNumber(done_env, tap.result);
        napi_value object = nullptr;
        napi_value fd = MakeFdHandle(done_env, std::move(tap.fd));
        if (fd == nullptr || napi_create_object(done_env, &object) != napi_ok) return nullptr;
        napi_set_named_property(done_env, object, "fd", fd);
        napi_set_named_property(done_env, object, "name", ToString(done_env, tap.name));
        return object;
      });
}

napi_value GetIff(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  TunInterface interface;
  const Result result = handle->file == nullptr ? -EBADF : TunGetIff(handle->file->fd.get(), &interface);
  if (result < 0) return ToNumber(env, result);
  napi_value object = nullptr;
  if (napi_create_object(env, &object) != napi_ok) return nullptr;
  napi_set_named_property(env, object, "name", ToString(env, interface.name));
  napi_set_named_property(env, object, "flags", ToNumber(env, interface.flags));
  return object;
}

/// The getters that do not sleep.
template <Result (*Get)(int)>
napi_value GetNow(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->file == nullptr ? -EBADF : Get(handle->file->fd.get()));
}

/// The setters of one int; they wait for the kernel's network configuration lock (RTNL).
template <Result (*Set)(int, int)>
napi_value SetInt(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const int value = args.Int32("value");
  if (args.failed()) return nullptr;
  return RunOnFile(env, "tun", handle, [value](OpenFile& file) { return Set(file.fd.get(), value); });
}

template <Result (*Set)(int, uint32_t)>
napi_value SetUint(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const uint32_t value = args.Uint32("value");
  if (args.failed()) return nullptr;
  return RunOnFile(env, "tun", handle, [value](OpenFile& file) { return Set(file.fd.get(), value); });
}

napi_value SetTxFilter(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const int flags = args.Int32("flags");
  const auto macs = args.Bytes("macs");
  if (!args.failed() && (macs.length % 6 != 0 || macs.length / 6 > 0xffff))
    args.RangeError("macs", "6 bytes an address, 65535 at most");
  if (args.failed()) return nullptr;
  std::vector<uint8_t> bytes(macs.data, macs.data + macs.length);
  return RunOnFile(env, "TUNSETTXFILTER", handle, [flags, bytes = std::move(bytes)](OpenFile& file) {
    return TunSetTxFilter(file.fd.get(), flags, bytes.data(), bytes.size() / 6);
  });
}

napi_value AttachFilter(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const auto program = args.Bytes("program");
  if (!args.failed() && (program.length % 8 != 0 || program.length / 8 > 0xffff)) {
    args.RangeError("program", "8 bytes an instruction, 65535 at most");
  }
  if (args.failed()) return nullptr;
  std::vector<uint8_t> bytes(program.data, program.data + program.length);
  return RunOnFile(env, "TUNATTACHFILTER", handle, [bytes = std::move(bytes)](OpenFile& file) {
    return file.filter->Attach(file.fd.get(), bytes.data(), bytes.size() / 8);
  });
}

napi_value DetachFilter(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  return RunOnFile(env, "TUNDETACHFILTER", handle, [](OpenFile& file) { return file.filter->Detach(file.fd.get()); });
}

struct FilterAnswer {
  Result result = 0;
  std::vector<uint8_t> program;
};

napi_value GetFilter(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return Resolved(env, -EBADF);
  return RunAsync(
      env, "TUNGETFILTER",
      [file = handle->file]() {
        FilterAnswer answer;
        answer.result = file->filter->Get(file->fd.get(), &answer.program);
        return answer;
      },
      [](napi_env done_env, FilterAnswer& answer) {
        return answer.result < 0 ? ToNumber(done_env, answer.result) : ToBytes(done_env, answer.program);
      });
}

napi_value GetDevNetns(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  UniqueFd netns;
  const Result result = handle->file == nullptr ? -EBADF : TunGetDevNetns(handle->file->fd.get(), &netns);
  return result < 0 ? ToNumber(env, result) : MakeFdHandle(env, std::move(netns));
}

napi_value GetHwaddr(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  if (args.failed()) return nullptr;
  std::vector<uint8_t> mac(6);
  const Result result = handle->file == nullptr ? -EBADF : TapGetHwaddr(handle->file->fd.get(), mac.data());
  return result < 0 ? ToNumber(env, result) : ToBytes(env, mac);
}

napi_value SetHwaddr(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const auto mac = args.Bytes("mac");
  if (!args.failed() && mac.length != 6) args.RangeError("mac", "6 bytes");
  if (args.failed()) return nullptr;
  std::vector<uint8_t> bytes(mac.data, mac.data + mac.length);
  return RunOnFile(env, "SIOCSIFHWADDR", handle,
                   [bytes = std::move(bytes)](OpenFile& file) { return TapSetHwaddr(file.fd.get(), bytes.data()); });
}

napi_value NetdevIoctl(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto netns = args.StringOrNull("netns");
  std::string name = args.String("name");
  const uint32_t what = args.Uint32("what");
  const int value = args.Int32("value");
  if (args.failed()) return nullptr;
  return RunAsync(env, "netdev", [netns = std::move(netns), name = std::move(name), what, value]() {
    return RunInNetns(Path(netns), [&]() { return NetdevRequest(name.c_str(), what, value); });
  });
}

template <typename Move>
napi_value MoveFrames(napi_env env, napi_callback_info info, const char* count_name, Move move) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const auto arena = args.Bytes("arena");
  const uint32_t stride = args.Uint32("stride");
  const uint32_t count = args.Uint32(count_name);
  const auto lengths = args.Lengths("lengths");
  if (!args.failed()) {
    if (stride == 0) args.RangeError("stride", "at least 1");
    if (static_cast<uint64_t>(stride) * count > arena.length) args.RangeError("arena", "stride bytes a frame");
    if (count > lengths.length) args.RangeError("lengths", "one entry a frame");
  }
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  return ToNumber(env, move(handle->file->fd.get(), arena.data, stride, count, lengths.data));
}

napi_value FramesRead(napi_env env, napi_callback_info info) { return MoveFrames(env, info, "max", ReadFrames); }
napi_value FramesWrite(napi_env env, napi_callback_info info) { return MoveFrames(env, info, "count", WriteFrames); }

constexpr Entry kEntries[] = {
    {"tapOpen", TapOpen},
    {"tunGetIff", GetIff},
    {"tunGetFeatures", GetNow<TunGetFeatures>},
    {"tunSetPersist", SetInt<TunSetPersist>},
    {"tunSetOwner", SetUint<TunSetOwner>},
    {"tunSetGroup", SetUint<TunSetGroup>},
    {"tunSetOffload", SetUint<TunSetOffload>},
    {"tunSetTxFilter", SetTxFilter},
    {"tunGetSndbuf", GetNow<TunGetSndbuf>},
    {"tunSetSndbuf", SetInt<TunSetSndbuf>},
    {"tunAttachFilter", AttachFilter},
    {"tunDetachFilter", DetachFilter},
    {"tunGetFilter", GetFilter},
    {"tunGetVnetHdrSz", GetNow<TunGetVnetHdrSz>},
    {"tunSetVnetHdrSz", SetInt<TunSetVnetHdrSz>},
    {"tunGetVnetLe", GetNow<TunGetVnetLe>},
    {"tunSetVnetLe", SetInt<TunSetVnetLe>},
    {"tunGetVnetBe", GetNow<TunGetVnetBe>},
    {"tunSetVnetBe", SetInt<TunSetVnetBe>},
    {"tunSetQueue", SetInt<TunSetQueue>},
    {"tunSetSteeringEbpf", SetInt<TunSetSteeringEbpf>},
    {"tunSetFilterEbpf", SetInt<TunSetFilterEbpf>},
    {"tunSetCarrier", SetInt<TunSetCarrier>},
    {"tunGetDevNetns", GetDevNetns},
    {"tapGetHwaddr", GetHwaddr},
    {"tapSetHwaddr", SetHwaddr},
    {"netdevIoctl", NetdevIoctl},
    {"framesRead", FramesRead},
    {"framesWrite", FramesWrite},
};

}  // namespace

void DefineTap(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
