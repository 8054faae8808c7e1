import asyncapy.client

client = client.Client(tls=False, encoding="json")
client.connect("0.0.0.0", 1500)
client.send({"test": 1})
response = client.receive()
print(response)
