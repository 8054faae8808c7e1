from asyncapy import Server
from asyncapy.filters import Filters

server = Server(addr="0.0.0.0", port=1500)


@server.add_handler(Filters.Fields(foo="\d+", bar=None), Filters.Ip(["127.0.0.1", "192.0.2.7"]))
async def filtered_handler(client, packet):
    print(f"Look at this! {client} sent me {packet}!")
    await client.close()


@server.add_handler(Filters.Ip("192.0.2.7"), Filters.Fields(foo=None))
async def stranger_handler(client, packet):
    print(f"Look at this! {client} is 192.0.2.7!")
    await client.close()


server.start()
