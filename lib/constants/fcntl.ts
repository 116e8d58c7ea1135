/** include/uapi/linux/fcntl.h */

/** The file can never get shorter. */
export const F_SEAL_SHRINK = 0x0002;
