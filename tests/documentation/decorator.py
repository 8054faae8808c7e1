from asyncapy import Server

server = Server(addr="0.0.0.0", port=1500)


@server.add_handler()
async def your_handler(c, p):
    ...


server.start()
