module wormhole

go 1.19
