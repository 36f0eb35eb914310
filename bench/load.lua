-- What wrk asks for; see load.py. After the address come:
--
--   one                            the address itself, again and again
--   pages RECORDS THREADS          pages of 100 records: thread N begins N/THREADS into the log, and reads on
--   posts FILE THREADS             the lines of FILE, each thread others, again and again
--
-- One thread has one connection for pages, so that each client reads on from what it has read itself.

local PAGE = 100
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local function pages(records, of)
  local path, last = wrk.path, records - PAGE
  local offset = math.floor(last * number / of)
  return function()
    local asked = wrk.format(nil, path .. "?offset=" .. string.format("%d", offset))
    offset = offset + PAGE
    if offset > last then offset = 0 end
    return asked
  end
end

local function posts(file, of)
  local requests, n = {}, 0
  for line in io.lines(file) do
    if n % of == number then requests[#requests + 1] = wrk.format("POST", nil, nil, line) end
    n = n + 1
  end
  local at = 0
  return function()
    at = at % #requests + 1
    return requests[at]
  end
end

function init(args)
  -- Without a function of this name, wrk repeats one request, which costs it least.
  if args[1] == "pages" then request = pages(tonumber(args[2]), tonumber(args[3])) end
  if args[1] == "posts" then request = posts(args[2], tonumber(args[3])) end
end

function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '{"answers": %d, "seconds": %.6f, "bytes": %d, "failed": %d, "ms": {"median": %.3f, "p99": %.3f, "most": %.3f}}',
    summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
