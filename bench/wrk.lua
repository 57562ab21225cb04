-- For wrk: an optional chunked POST, and the results as one line of JSON.
-- Without a `request` function of ours wrk renders the request once and Lua is out of its way.

local CHUNK = string.rep("x", 4096)
local CHUNKS = 4

function init(args)
   if args[1] ~= "post" then return end
   local chunk = string.format("%x\r\n%s\r\n", #CHUNK, CHUNK)
   local request = table.concat({
      "POST / HTTP/1.1",
      "Host: " .. wrk.headers["Host"],
      "Content-Type: application/octet-stream",
      "Transfer-Encoding: chunked",
      "",
      string.rep(chunk, CHUNKS) .. "0\r\n\r\n",
   }, "\r\n")
   wrk.format = function() return request end
end

function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      'RESULT {"requests": %d, "bytes": %d, "seconds": %f, "p50_us": %f, "p99_us": %f, '
         .. '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}',
      summary.requests, summary.bytes, summary.duration / 1e6,
      latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
