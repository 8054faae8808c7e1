-- A dissector of AsyncAProto for Wireshark and tshark, written to docs/protocol.md ("A packet" and "Version 23"): reassembles
-- packets of both versions from TCP segments, hands JSON and ZiProto (MessagePack) payloads on, and names error replies.

local proto = Proto("asyncaproto", "AsyncAProto")

local encodings = { [0] = "JSON", [1] = "ZiProto" }
local kinds = {
    [0] = "REQUEST", [1] = "REPLY", [2] = "PART", [3] = "END", [4] = "FAILURE",
    [5] = "EVENT", [6] = "CANCEL", [7] = "PING", [8] = "PONG", [9] = "LEAVING",
}
local without_payload = { [3] = true, [6] = true, [7] = true, [9] = true }
local orders = { { 1, "big", 1 }, { 2, "little", 2 } }

proto.prefs.ports = Pref.range("TCP ports", "8081", "Ports that servers listen on", 65535)
proto.prefs.header_size = Pref.uint("Header size", 4, "Bytes of Content-Length, 1 to 8, as the server has it")
proto.prefs.byteorder = Pref.enum("Byte order", 1, "Order of these bytes, as the server has it", orders, false)

local fields = {
    length = ProtoField.uint64("asyncaproto.length", "Content-Length", base.DEC),
    version = ProtoField.uint8("asyncaproto.version", "Protocol-Version", base.DEC),
    encoding = ProtoField.uint8("asyncaproto.encoding", "Content-Encoding", base.DEC, encodings),
    kind = ProtoField.uint8("asyncaproto.kind", "Kind", base.DEC, kinds),
    number = ProtoField.uint32("asyncaproto.number", "Number", base.DEC),
    payload = ProtoField.bytes("asyncaproto.payload", "Payload"),
    text = ProtoField.string("asyncaproto.text", "Text"),
    error = ProtoField.string("asyncaproto.error", "Error"),
}
proto.fields = fields

local function wrong(name, text)
    return ProtoExpert.new("asyncaproto." .. name, text, expert.group.MALFORMED, expert.severity.ERROR)
end

local experts = {
    version = wrong("version.wrong", "The version is neither 22 nor 23"),
    short = wrong("length.short", "A packet has a Content-Length of 5 at least"),
    short_numbered = wrong("length.short_numbered", "A packet of version 23 has a Content-Length of 7 at least"),
    kind = wrong("kind.wrong", "Kinds 10 to 127 are errors"),
    payload = wrong("payload.wrong", "Packets of this kind have no payload"),
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

-- Dissects the payload of a packet, whose name is for the info column.
local function dissect_payload(payload, encoding, name, pinfo, item)
    local text = payload:bytes():raw()
    item:add(fields.payload, payload)
    local code = text:match("(ERR_[A-Z_]+)")
    if code and text:find("failure", 1, true) then
        item:add(fields.error, payload, code)
    end
    pinfo.cols.info:append(string.format(" [%s, %d bytes%s]", name, payload:len(), code and ", " .. code or ""))
    local inner
    if encoding == 0 then
        item:add(fields.text, payload, text)
        inner = dissector_named("json")
    elseif encoding == 1 then
        inner = dissector_named("msgpack")
    end
    if inner then
        inner:call(payload:tvb(), pinfo, item)
    end
end

-- Dissects a packet of version 23 after its encoding.
local function dissect_numbered(buffer, encoding, name, pinfo, item)
    local size = proto.prefs.header_size
    local kind, number = buffer(size + 2, 1), buffer(size + 3, 4)
    local code = kind:uint()
    local kind_item = item:add(fields.kind, kind)
    if code >= 10 and code < 128 then
        kind_item:add_proto_expert_info(experts.kind)
    end
    local value
    if proto.prefs.byteorder == 2 then
        item:add_le(fields.number, number)
        value = number:le_uint()
    else
        item:add(fields.number, number)
        value = number:uint()
    end
    local title = string.format("%s %.0f", kinds[code] or "kind " .. code, value)
    if buffer:len() == size + 7 then
        pinfo.cols.info:append(" [" .. title .. "]")
        return
    end
    local payload = buffer(size + 7)
    if kinds[code] and not without_payload[code] then
        dissect_payload(payload, encoding, title .. ", " .. name, pinfo, item)
        return
    end
    local payload_item = item:add(fields.payload, payload)
    if without_payload[code] then
        payload_item:add_proto_expert_info(experts.payload)
    end
    pinfo.cols.info:append(string.format(" [%s, %d bytes]", title, payload:len()))
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
    local version, encoding = buffer(size, 1):uint(), buffer(size + 1, 1):uint()
    local version_item = item:add(fields.version, buffer(size, 1))
    if version ~= 22 and version ~= 23 then
        version_item:add_proto_expert_info(experts.version)
    end
    item:add(fields.encoding, buffer(size + 1, 1))
    local name = encodings[encoding] or string.format("encoding %d", encoding)
    if version == 23 and buffer:len() < size + 7 then
        item:add_proto_expert_info(experts.short_numbered)
    elseif version == 23 then
        dissect_numbered(buffer, encoding, name, pinfo, item)
    elseif buffer:len() < size + 5 then
        item:add_proto_expert_info(experts.short)
    else
        dissect_payload(buffer(size + 2), encoding, name, pinfo, item)
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
