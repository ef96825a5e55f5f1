package wormhole

// Not in package syscall, which is frozen.
const sysMemfdCreate = 319
