"""The text of Caddy's configuration: a pure function of the app's places, its [proxy] and the port."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from string import Template

import msgspec

from bulletproof.domain.config import Certificates, Proxy
from bulletproof.domain.maintenance import ALLOWED, ANSWERS, RETRY_SECONDS, page
from bulletproof.domain.public import has_tls, public_of
from bulletproof.errors import Refused

PATIENCE_SECONDS = 5
"""How long a request may wait until the app's path can be dialled at all; nothing of it has been sent by then.

A crashed gunicorn was back after 1.4 s on a loaded machine; three times that leaves room for a slower boot. It is no
hold: with the app down for good every request hangs this long.
"""
GRACE_SECONDS = 30
"""From SIGTERM on, requests in flight may take this long."""
REQUEST_BUFFER_KIB = 512
"""So much of a request's body is taken in before the app is dialled; what is larger flows on from there.

It is more than werkzeug takes of a form (500,000 bytes). Without it gunicorn carries out a request whose client left in
the middle of its body, with the half that came (each of 2 kB to 1 MB), a form that trickles in blocks a worker, and a
client that leaves a hold is not noticed, so that its request is carried out all the same.
"""

_HASHED = r"[.-][0-9a-f]{8,}[.][a-z0-9.]+$"
_HASHED_LETTER = r"[.-][0-9]+[a-f][0-9a-f]*[.]|[.-][a-f]+[0-9][0-9a-f]*[.]"
"""Names that change with their content, as collectstatic and bundlers make them: they may be kept for ever. A hash of
eight digits and more has both letters and digits in it; a date or a word has not."""
_UNQUOTABLE = frozenset('{}|"\\')
"""Caddy takes braces for placeholders and what follows a bar for permissions; the others end or escape a quotation."""
_OUR_ADDRESS = "127.0.0.1"


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where Caddy finds and lays things."""

    app: str
    storage: Path
    """Its certificates and keys."""
    access_log: Path
    app_socket: Path
    """What it dials for every request."""
    admin: Path
    """The socket by which it is told to read its configuration again."""
    door: Path
    """A socket by which we ask the app through it, whatever stands before the public."""
    static: Path
    former: Path
    maintenance: Path
    """A link; while it is there, the public gets the page in it."""
    goodbye: Path
    """A file; while it is there, each connection ends with the answer that it waits for."""
    rolls: bool = True
    """Whether it keeps its log short itself."""


def caddyfile(places: Places, proxy: Proxy, port: int) -> str:
    """The whole configuration. Raises Refused `path-not-servable` for what Caddy cannot be told of."""
    parts = [_globals(places, proxy), _snippets(places, proxy)]
    parts += [*_sites(places, proxy, port), _site("http://:" + str(_plain_port(proxy, port)), _door(places, proxy))]
    return "\n".join(parts)


def _plain_port(proxy: Proxy, port: int) -> int:
    return proxy.http_port if proxy.domain else port


def _sites(places: Places, proxy: Proxy, port: int) -> list[str]:
    """What the public meets."""
    serving = ["import public", "import app", f"import dial {_app_socket(places)}"]
    if proxy.domain is None:
        return [_site(f"http://:{port}", [f"bind {_OUR_ADDRESS}", "", *serving])]
    address = public_of(proxy, port).address
    moved = f"redir {address}{{uri}} 308"
    nobody = _site(f"http://:{proxy.http_port}", ['respond "No site of this name is here." 421'])
    if not has_tls(proxy):
        sites = [_site(f"http://{proxy.domain}:{port}", serving)]
        return [*sites, *(_site(_plainly(proxy, proxy.aliases), [moved]) for _ in proxy.aliases[:1]), nobody]
    tls = _tls(proxy)
    sites = [_site(f"https://{proxy.domain}:{port}", [*tls, *serving])]
    if proxy.aliases:
        sites.append(_site(", ".join(f"https://{one}:{port}" for one in proxy.aliases), [*tls, moved]))
    return [*sites, _site(_plainly(proxy, (proxy.domain, *proxy.aliases)), [moved]), nobody]


def _plainly(proxy: Proxy, names: Iterable[str]) -> str:
    return ", ".join(f"http://{name}:{proxy.http_port}" for name in names)


def _tls(proxy: Proxy) -> list[str]:
    if proxy.certificate and proxy.key:
        return [f"tls {_quoted(proxy.certificate)} {_quoted(proxy.key)}"]
    return ["tls internal"] if proxy.certificates is Certificates.INTERNAL else []


def _site(address: str, lines: list[str]) -> str:
    return "\n".join([f"{address} {{", *(f"\t{line}" if line else "" for line in lines), "}", ""])


def _door(places: Places, proxy: Proxy) -> list[str]:
    """Our own way in: the same app, and neither a log nor the maintenance page."""
    scheme = "https" if proxy.domain else "http"
    return [
        f"bind {_socket(places.door, '|0600')}",
        "",
        "import app",
        f"import asked_by_us {_app_socket(places)} {scheme}",
    ]


def _app_socket(places: Places) -> str:
    return _socket(places.app_socket)


def _socket(path: Path, mode: str = "") -> str:
    return f'{_quoted(f"unix/{path}")[:-1]}{mode}"'


def _globals(places: Places, proxy: Proxy) -> str:
    lines = [f"admin {_socket(places.admin, '|0600')}", "persist_config off"]
    lines += ["auto_https disable_redirects", "skip_install_trust"] if has_tls(proxy) else ["auto_https off"]
    lines += [f"storage file_system {_quoted(str(places.storage))}"]
    if proxy.domain:
        lines += [f"http_port {proxy.http_port}", f"https_port {proxy.https_port}"]
    protocols = "h1 h2 h3" if proxy.http3 else "h1 h2" if has_tls(proxy) else "h1"
    servers = [f"protocols {protocols}", *(["strict_sni_host on"] if has_tls(proxy) else [])]
    if proxy.trusted_proxies:
        servers += [f"trusted_proxies static {' '.join(proxy.trusted_proxies)}", "trusted_proxies_strict"]
    return _GLOBALS.substitute(lines="\n\t".join(lines), grace=GRACE_SECONDS, servers="\n\t\t".join(servers))


def _snippets(places: Places, proxy: Proxy) -> str:
    absent = (f"{places.app} is not running", "Please try again in a few seconds.")
    broken = (
        f"{places.app} did not finish its answer",
        "Your request may have been carried out or not. Please look before you send it again.",
    )
    most = proxy.max_body_mib or 0
    large = ("This is too large", f"At most {most} MiB are accepted here. Nothing of it was carried out.")
    stranger = f"@stranger not remote_ip {' '.join(proxy.trusted_proxies)}\n\t" if proxy.trusted_proxies else ""
    answers = {
        f"{name}_{form}": text
        for name, words in {"absent": absent, "broken": broken, "large": large}.items()
        for form, text in {
            "page": page(*words),
            "words": ". ".join(words),
            "json": f'"error":"{words[0]}","message":"{words[1]}"',
        }.items()
    }
    return _SNIPPETS.substitute(
        **answers,
        access_log=_quoted(str(places.access_log)),
        rolling=_ROLLING if places.rolls else "roll_disabled",
        static=_quoted(str(places.static)),
        former=_quoted(str(places.former)),
        hashed=_HASHED,
        hashed_letter=_HASHED_LETTER,
        stranger=stranger,
        strangers="@stranger " if stranger else "",
        limit=Template(_LIMIT).substitute(most=most, bytes=most << 20) if most else "",
        patience=PATIENCE_SECONDS,
        buffer=REQUEST_BUFFER_KIB,
        pages=_quoted(str(places.maintenance.parent)),
        maintenance=places.maintenance.name,
        maintenance_folder=_quoted(str(places.maintenance)),
        answer=next(iter(ANSWERS)),
        allowed=ALLOWED,
        retry=RETRY_SECONDS,
        goodbye=places.goodbye.name,
        our_address=_OUR_ADDRESS,
    )


def _quoted(words: str) -> str:
    if _UNQUOTABLE.intersection(words) or not words.isprintable():
        raise Refused(
            "path-not-servable",
            f"Caddy cannot be given {words!r}: no braces, bars, quotes, backslashes or control characters",
            hint="choose another folder with --root",
        )
    return f'"{words}"'


_GLOBALS = Template("""\
# Written by bulletproof at every start of the proxy; what you change here is lost then.
{
	$lines
	grace_period ${grace}s
	servers {
		$servers
		timeouts {
			read_header 30s
		}
	}
	log {
		output stderr
		sampling {
			interval 1s
			first 20
			thereafter 100
		}
	}
}
""")

_LIMIT = """
	@large expression `{header.Content-Length}.matches("^[0-9]{1,18}$$") && int({header.Content-Length}) > $bytes`
	handle @large {
		error "too large" 413
	}
	request_body {
		max_size ${most}MiB
	}
"""
"""What says its size is refused before the app gets any of it; the other is cut at the limit."""

# No idle connection to the app is kept: without `keepalive off` neither cutover nor hold is sharp (30 of 30 requests
# after the rename still reached the old instance). Only a failed dial is tried again, when nothing was sent: no request
# has the method NEVER. (Caddy up to 2.11.1 lost the body of a request that it dialled for twice.) What a client says of
# proxies before it is dropped. Headers with an underscore are dropped by Caddy itself since 2.11.4; otherwise gunicorn
# would believe what a client says under SCRIPT_NAME. Of several addresses in X-Forwarded-For uvicorn believes the first
# and werkzeug the last, so the app gets one.
_ROLLING = "roll_size 10MiB\n\t\t\troll_keep 5"
_SNIPPETS = Template("""\
(static) {
	@hashed expression `{http.request.uri.path}.matches("$hashed") && {http.request.uri.path}.matches("$hashed_letter")`
	header ?Cache-Control no-cache
	header @hashed Cache-Control "public, max-age=31536000, immutable"
	encode zstd gzip
	file_server
}

(public) {
	log {
		output file $access_log {
			$rolling
		}
		format filter {
			wrap json
			request>headers delete
			resp_headers delete
		}
	}
	log_append user_agent {header.User-Agent}

	@goodbye {
		file {
			root $pages
			try_files /$goodbye
		}
		not header Connection *pgrade*
	}
	header @goodbye >Connection close

	@maintenance {
		file {
			root $pages
			try_files /$maintenance/$answer
		}
		not file {
			root $pages
			try_files /$maintenance/$allowed/{client_ip}
		}
	}
	handle @maintenance {
		@browser header Accept *text/html*
		@program header Accept *application/json*
		@other {
			not header Accept *text/html*
			not header Accept *application/json*
		}
		@sends not method GET HEAD
		root * $maintenance_folder
		method @sends GET
		rewrite @browser /page.html
		rewrite @program /answer.json
		rewrite @other /words.txt
		request_header -If-*
		request_header -Range
		header Retry-After $retry
		header Cache-Control no-store
		header >-Etag
		header >-Last-Modified
		file_server {
			status 503
		}
	}
$limit}

(app) {
	header -Server
	header -Via
	request_header -Forwarded
	${stranger}request_header ${strangers}-X-Forwarded-*

	@static {
		method GET HEAD
		not path */
		file {
			root $static
			try_files {path}
		}
	}
	handle @static {
		root * $static
		import static
	}

	@former {
		method GET HEAD
		not path */
		file {
			root $former
			try_files {path}
		}
	}
	handle @former {
		root * $former
		import static
	}

	handle_errors 413 {
		header -Server
		header Cache-Control no-store
		@browser header Accept *text/html*
		@program header Accept *application/json*
		header @browser Content-Type "text/html; charset=utf-8"
		header @program Content-Type application/json
		respond @browser `$large_page` 413
		respond @program `{$large_json}` 413
		respond "$large_words" 413
	}
	handle_errors 502 503 504 {
		header -Server
		header Cache-Control no-store
		@browser header Accept *text/html*
		@program header Accept *application/json*
		header @browser Content-Type "text/html; charset=utf-8"
		header @program Content-Type application/json
		@absent expression `{err.message}.startsWith("dial unix ")`
		handle @absent {
			header Retry-After $patience
			respond @browser `$absent_page` 503
			respond @program `{$absent_json}` 503
			respond "$absent_words" 503
		}
		handle {
			respond @browser `$broken_page` 502
			respond @program `{$broken_json}` 502
			respond "$broken_words" 502
		}
	}
}

(transport) {
	lb_try_duration ${patience}s
	lb_try_interval 100ms
	lb_retry_match {
		method NEVER
	}
	request_buffers ${buffer}KiB
	transport http {
		keepalive off
		compression off
	}
}

(dial) {
	handle {
		reverse_proxy {args[0]} {
			import transport
			header_up X-Forwarded-For {client_ip}
			header_up X-Real-IP {client_ip}
		}
	}
}

(asked_by_us) {
	handle {
		reverse_proxy {args[0]} {
			import transport
			header_up X-Forwarded-For $our_address
			header_up X-Real-IP $our_address
			header_up X-Forwarded-Proto {args[1]}
		}
	}
}
""")
