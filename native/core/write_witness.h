#ifndef VHOST_NET_CORE_WRITE_WITNESS_H_
#define VHOST_NET_CORE_WRITE_WITNESS_H_

#include <vector>

#include "core/mapping.h"
#include "core/page_io.h"

namespace vhost_net {

/// Registers the mapping with a userfaultfd that write-protects asynchronously and protects it: from now on the kernel
/// remembers every page written through this mapping, and only through it. Closing *out ends it. -EINVAL, -ENOSYS or
/// -ENOTTY before Linux 6.7.
Result StartWriteWitness(const Mapping& mapping, UniqueFd* out);
/// Takes the pages written since the last call and protects them again: byte ranges from the mapping's start.
Result TakeWritten(const Mapping& mapping, std::vector<FileRange>* out);

}  // namespace vhost_net

#endif
