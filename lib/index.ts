/** The public surface. */
export type {
  Backend,
  BackendDevice,
  BackendEvents,
  BackendKind,
  QueueNotifiers,
  RingFault,
  StoppedRing,
} from './backend/backend';
export { EmulatedBackend, type EmulatedOptions } from './backend/emulated';
export type { PathSettings } from './backend/path-settings';
export { prepareTap } from './backend/tap-features';
export { VhostKernelBackend, type VhostKernelOptions } from './backend/vhost-kernel';
export * as virtioNet from './constants/virtio-net';
export type { DeviceEvents, OfferOptions, VirtioNetDeviceOptions, VirtioNetDeviceParts } from './device/device-options';
export { DEFAULT_PROPERTIES, type DeviceProperties } from './device/device-properties';
export { type DeviceParts, type DeviceState, validateDeviceState } from './device/device-state';
export type { SwitchedRing, SwitchReceipt } from './device/switch-backend';
export { type InterruptLine, VIRTIO_MMIO_BYTES, VirtioMmio, type VirtioMmioOptions } from './device/virtio-mmio';
export { VirtioNetDevice } from './device/virtio-net-device';
export { ProtocolError, VhostError, type VhostErrorCode } from './errors';
export { Guest, type GuestOptions } from './guest/guest';
export { GuestRunner } from './guest/guest-runner';
export { type MmioBus, MmioDriver } from './guest/mmio-driver';
export { NetDriver, type NetDriverOptions } from './guest/net-driver';
export { diagnose, type Finding } from './host/doctor';
export { EventFd, type EventFdWatch } from './host/event-fd';
export { Netns } from './host/netns';
export { Tap, type TapOptions } from './host/tap';
export { VhostNet } from './host/vhost-net';
export { type GuestAddress, gpa, type HostAddress, hva, PAGE_SIZE } from './memory/address';
export { DirtyLog, type DirtySource, DirtyUnion, GuestWriteLog } from './memory/dirty-log';
export {
  type AdoptedRegionSpec,
  GuestMemory,
  type GuestRegion,
  type MemoryOptions,
  maxMemRegions,
  type RegionSpec,
} from './memory/guest-memory';
export { PageBitmap } from './memory/page-bitmap';
export { type Address, formatAddress, parseAddress } from './migration/address';
export { announce, rarpFrame } from './migration/announce';
export { type Connection, connectionOver } from './migration/connection';
export { ControlClient } from './migration/control-client';
export type { ControlHooks, ControlParts, Departure } from './migration/control-desk';
export type { ControlMethods, ControlStatus, MigrationAnswer } from './migration/control-protocol';
export { ControlServer } from './migration/control-server';
export { type ReceivedDescriptors, receiveDescriptors, sendDescriptors } from './migration/descriptors';
export { type DestinationHost, MigrationDestination, type ReceivedMigration } from './migration/destination';
export type { HandoverAccount } from './migration/handover/account';
export { MigrationListener, type MigrationListenerOptions } from './migration/listener';
export type { AuditResult, Difference, SetupMessage } from './migration/messages';
export type {
  DowntimeParts,
  MigratableGuest,
  MigrationEvent,
  MigrationOptions,
  MigrationPhase,
  MigrationResult,
  Round,
} from './migration/options';
export { compareSides } from './migration/preflight';
export type { MigrationRecord } from './migration/record';
export { type RestoredMachine, type RestoreOptions, restoreFromFile } from './migration/restore';
export { type SavedFile, type SaveOptions, saveToFile } from './migration/save';
export { MigrationSource, type MigrationSourceParts } from './migration/source';
export { ReceiveThrottle } from './migration/throttle';
export { connect, type Listener, type ListenOptions, listen, type TransportOptions } from './migration/transport';
export type { TlsOptions } from './migration/transport-tls';
export { predictMeasured } from './migration/what-if';
export type { FdHandle } from './native';
export type { ControlCommand } from './net/control-command';
export { FEATURE_PROFILES, type FeatureProfile, unmetDependencies } from './net/feature-rules';
export { bit, bits, featureNames } from './net/features';
export { acceptsFrame, type ReceiveFilter } from './net/receive-filter';
export { receiveFilterProgram } from './net/receive-filter-program';
export { type DescribedParts, describeQueues } from './observe/describe-queues';
export { type DirtyRate, measureDirtyRate } from './observe/dirty-rate';
export { FrameLedger, type LedgerReport } from './observe/frame-ledger';
export { inspectDescription, type NumberedInspection } from './observe/inspect-description';
export { sumReports } from './observe/ledger-set';
export { comparePages, explainPage, hashPages } from './observe/page-audit';
export { type DescribedQueue, type Description, parseDescription } from './observe/queue-description';
export { WriteWitness } from './observe/write-witness';
export { renderReport } from './report/report';
export { type ServedPath, VhostUserServer, type VhostUserServerOptions } from './serve/server';
export { FaultPlan } from './trace/fault-plan';
export { Trace, type TraceRecord } from './trace/trace';
export type { QueueState } from './virtqueue/queue-state';
export type { InspectOptions, QueueInspection, QueueRole, Violation } from './virtqueue/ring-inspection';
export { inspectQueue } from './virtqueue/ring-inspector';
export { inspectionText } from './virtqueue/ring-inspector-text';
export { SplitDriver } from './virtqueue/split-driver';
export { ensureVmPrepared, runInVm } from './vm';
