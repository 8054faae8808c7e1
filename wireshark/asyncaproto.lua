-- A dissector of AsyncAProto for Wireshark and tshark, written to docs/protocol.md ("A packet"): reassembles packets from TCP
-- segments, hands JSON and ZiProto (MessagePack) payloads on, and names the server's error replies.

local proto = Proto("asyncaproto", "AsyncAProto")

local encodings = { [0] = "JSON", [1] = "ZiProto" }
local orders = { { 1, "big", 1 }, { 2, "little", 2 } }

proto.prefs.ports = Pref.range("TCP ports", "8081", "Ports that servers listen on", 65535)
proto.prefs.header_size = Pref.uint("Header size", 4, "Bytes of Content-Length, 1 to 8, as the server has it")
proto.prefs.byteorder = Pref.enum("Byte order", 1, "Order of these bytes, as the server has it", orders, false)

local fields = {
    length = ProtoField.uint64("asyncaproto.length", "Content-Length", base.DEC),
    version = ProtoField.uint8("asyncaproto.version", "Protocol-Version", base.DEC),
    encoding = ProtoField.uint8("asyncaproto.encoding", "Content-Encoding", base.DEC, encodings),
    payload = ProtoField.bytes("asyncaproto.payload", "Payload"),
    text = ProtoField.string("asyncaproto.text", "Text"),
    error = ProtoField.string("asyncaproto.error", "Error"),
}
proto.fields = fields

local experts = {
    version = ProtoExpert.new("asyncaproto.version.wrong", "The version is not 22",
        expert.group.MALFORMED, expert.severity.ERROR),
    short = ProtoExpert.new("asyncaproto.length.short", "A packet has a Content-Length of 5 at least",
        expert.group.MALFORMED, expert.severity.ERROR),
}
proto.experts = experts

local function content_length(range)
    if proto.prefs.byteorder == 2 then
        return range:le_uint64()
    end
    return range:uint64()
end

local function dissector_named(name)
    local ok, found = pcall(Dissector.get, name)
    return ok and found or nil
end

-- Dissects one whole packet.
local function dissect_packet(buffer, pinfo, tree)
    local size = proto.prefs.header_size
    local header = buffer(0, size)
    local item = tree:add(proto, buffer(), "AsyncAProto")
    item:add(fields.length, header, content_length(header))
    if buffer:len() < size + 2 then
        item:add_proto_expert_info(experts.short)
        return
    end
    local version, encoding = buffer(size, 1), buffer(size + 1, 1)
    local version_item = item:add(fields.version, version)
    if version:uint() ~= 22 then
        version_item:add_proto_expert_info(experts.version)
    end
    item:add(fields.encoding, encoding)
    if buffer:len() < size + 5 then
        item:add_proto_expert_info(experts.short)
        return
    end
    local payload = buffer(size + 2)
    item:add(fields.payload, payload)
    local text = payload:bytes():raw()
    local code = text:match("(ERR_[A-Z_]+)")
    if code and text:find("failure", 1, true) then
        item:add(fields.error, payload, code)
    end
    local name = encodings[encoding:uint()] or string.format("encoding %d", encoding:uint())
    pinfo.cols.info:append(string.format(" [%s, %d bytes%s]", name, payload:len(), code and ", " .. code or ""))
    local inner
    if encoding:uint() == 0 then
        item:add(fields.text, payload, text)
        inner = dissector_named("json")
    elseif encoding:uint() == 1 then
        inner = dissector_named("msgpack")
    end
    if inner then
        inner:call(payload:tvb(), pinfo, item)
    end
end

local function packet_length(buffer, pinfo, offset)
    local size = proto.prefs.header_size
    return size + content_length(buffer(offset, size)):tonumber()
end

function proto.dissector(buffer, pinfo, tree)
    pinfo.cols.protocol = "AsyncAProto"
    pinfo.cols.info = string.format("%d > %d", pinfo.src_port, pinfo.dst_port)
    dissect_tcp_pdus(buffer, tree, proto.prefs.header_size, packet_length, dissect_packet)
    pinfo.cols.protocol = "AsyncAProto"
    return buffer:len()
end

local registered

local function register()
    local ports = DissectorTable.get("tcp.port")
    if registered then
        ports:remove(registered, proto)
    end
    registered = proto.prefs.ports
    ports:add(registered, proto)
end

function proto.prefs_changed()
    register()
end

register()
