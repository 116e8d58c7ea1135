/** Both sides' accounts of the frames of a hand-over, and what does not add up or cannot be known. */

/** What became of the frames in the source's tap from the moment its guest stood. */
export interface SourceAccount {
  /** Read from the tap since then, and those that had been read before and had found no room in the guest. */
  readonly read: number;
  /** Sent to the destination, for its guest. */
  readonly sent: number;
  /** The guest's own, come back. */
  readonly own: number;
  /** Broadcast and flooded ones after the cut, which count at the destination's tap. */
  readonly groupAfterCut: number;
  /** Announcements of the destination that were recognised. */
  readonly markers: number;
  /** Came for the guest when everything for it had been sent. */
  readonly late: number;
  /** Frames that found the tap's queue full, in this time; null where the kernel does not tell. */
  readonly dropped: number | null;
  /** What became the cut: the destination's announcement, or time when it did not come back. */
  readonly cutBy: 'marker' | 'timeout';
  /** Grace periods in which only time has passed. */
  readonly weakGraces: number;
}

/** What became of the frames in the destination's tap, and of those that the source sent. */
export interface DestinationAccount {
  /** Thrown away before the tap was opened. */
  readonly discarded: number;
  /** Read from the tap from then on, until the join. */
  readonly read: number;
  readonly own: number;
  /** Had reached the source's tap before the cut too. */
  readonly matched: number;
  /** Left for the guest. */
  readonly kept: number;
  /** Came from the source, for the guest. */
  readonly received: number;
  readonly dropped: number | null;
  /** Streams whose joins could have been others. */
  readonly ambiguous: number;
  /** Streams whose frames the two taps saw differently. */
  readonly disagreeing: number;
  /** Not for a known address of the guest, and seen at the source's tap after the cut, but not here. */
  readonly missing: number;
  readonly weakGraces: number;
  /** The source was heard to the end, and the guest has taken what waited for it. */
  readonly complete: boolean;
  /** From the guest's start to the first frame it was given, and to the first it sent. Milliseconds; null when there was none yet. */
  readonly firstReceivedMs: number | null;
  readonly firstSentMs: number | null;
}

export interface HandoverAccount {
  readonly source: SourceAccount | null;
  readonly destination: DestinationAccount;
  /** Why it is not certain that every frame was given once, in order; empty when it is. */
  readonly unproven: readonly string[];
}

/** Compares the accounts. `source` is null where the source was lost before it could give its own. */
export function compareAccounts(source: SourceAccount | null, destination: DestinationAccount): HandoverAccount {
  const unproven: string[] = [];
  const said = (wrong: boolean, what: string): void => {
    if (wrong) unproven.push(what);
  };
  const d = destination;
  if (source === null) unproven.push('the source was lost before its tap was empty: what was in it is lost, uncounted');
  else {
    const s = source;
    said(
      s.read !== s.sent + s.own + s.groupAfterCut + s.markers,
      `the source read ${s.read} frames and accounts for ${s.sent + s.own + s.groupAfterCut + s.markers}`,
    );
    said(!d.complete, 'the guest did not take the frames that waited for it');
    said(s.sent !== d.received, `the source sent ${s.sent} frames and ${d.received} arrived`);
    said(s.late > 0, `${s.late} frames for the guest came to the source's tap too late`);
    said(s.dropped === null, "the kernel does not tell what the source's tap dropped");
    said((s.dropped ?? 0) > 0, `the queue of the source's tap overflowed: ${s.dropped} frames are lost`);
    said(
      s.cutBy === 'timeout',
      'the announcement did not come back to the source: order across streams is not kept, and repeated frames may be told apart wrongly',
    );
  }
  said(
    d.read !== d.own + d.matched + d.kept,
    `the destination read ${d.read} frames and accounts for ${d.own + d.matched + d.kept}`,
  );
  said(d.dropped === null, "the kernel does not tell what the destination's tap dropped");
  said((d.dropped ?? 0) > 0, `the queue of the destination's tap overflowed: ${d.dropped} frames are lost`);
  said(d.ambiguous > 0, `${d.ambiguous} streams of repeated frames could be joined in several ways`);
  said(d.disagreeing > 0, `${d.disagreeing} streams reached the two taps in different orders`);
  said(
    d.missing > 0,
    `${d.missing} frames reached the source's tap after the cut and not the destination's: lost, if for an address of the guest that is not known`,
  );
  const weak = d.weakGraces + (source?.weakGraces ?? 0);
  said(weak > 0, `${weak} grace periods were waits only: this kernel has no membarrier for all threads`);
  return { source, destination, unproven };
}
