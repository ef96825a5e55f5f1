/* A file of a program that has the implementation in another one, and asks for nothing else. */
#include "wormhole.h"

#include <string.h>
#include <unistd.h>

int main(void) {
    struct wormhole_message message;
    int tx, rx, result;
    wormhole_message_init(&message);
    if (wormhole_channel(&tx, &rx) < 0) return 1;
    result = wormhole_send(tx, "[1]", 3);
    if (result == 0) result = wormhole_recv(rx, &message);
    if (result == 0) result = strcmp(message.text, "[1]");
    if (result == 0) result = wormhole_connect(WORMHOLE_NAME("\0wormhole nobody"), 0) >= 0;
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
    return result != 0;
}
