/* The implementation, as its own file of a program. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

/* Twice does no harm. */
#include "wormhole.h"
