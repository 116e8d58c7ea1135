#include <napi.h>

#include "binding/args.h"

namespace vhost_net::binding {
namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  for (auto define :
       {DefineDescriptors, DefineMemory, DefinePages, DefinePageStream, DefinePoll, DefineSocket, DefineTap, DefineTime, DefineVhost,
        DefineVring}) {
    define(env, exports);
  }
  return exports;
}

NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)

}  // namespace
}  // namespace vhost_net::binding
