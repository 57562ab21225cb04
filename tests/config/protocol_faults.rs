//! Faults of the keys about TLS, HTTP/2, gRPC and the PROXY protocol: each with its place, and with what
//! to write instead.

use super::faults;
use super::protocols::{listener, upstream};

#[test]
fn values_of_listeners_that_cannot_be_say_what_to_write() {
    for (rest, fault, advice) in [
        (
            "tls = true",
            "`tls` takes a table, not `true`",
            "write `tls = { cert = \"cert.pem\", key = \"key.pem\" }`",
        ),
        (
            "tls = {}",
            "`tls` has no certificate",
            "write `cert = \"cert.pem\"` and `key = \"key.pem\"`, or `self_signed = true` to try \
             things out",
        ),
        (
            "tls = { self_signed = false }",
            "`tls` has no certificate",
            "write `cert = \"cert.pem\"` and `key = \"key.pem\"`, or `self_signed = true` to try \
             things out",
        ),
        (
            "tls = { cert = \"c.pem\" }",
            "`cert` has no `key`",
            "write `key = \"key.pem\"` beside it, its private key; the same file if that has both",
        ),
        (
            "tls = { key = \"k.pem\" }",
            "`key` has no `cert`",
            "write `cert = \"cert.pem\"` beside it, the certificate with its chain",
        ),
        (
            "tls = { self_signed = true, ocsp = \"o.der\" }",
            "there is no certificate for this `ocsp`",
            "write `cert = \"cert.pem\"` and `key = \"key.pem\"` beside it, or remove it",
        ),
        (
            "tls = { cert = \"c\", key = \"k\", certificates = [{ cert = \"c\", key = \"k\" }] }",
            "a certificate stands beside `certificates`",
            "put it into that list, whose first is for names that none of them has",
        ),
        (
            "tls = { cert = \"c\", key = \"k\", self_signed = true }",
            "`self_signed` stands beside a certificate of your own",
            "remove one of the two",
        ),
        (
            "tls = { self_signed = true, certificates = [{ cert = \"c\", key = \"k\" }] }",
            "`self_signed` stands beside a certificate of your own",
            "remove one of the two",
        ),
        (
            "tls.certificates = []",
            "there is no certificate in `certificates`",
            "write `certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]`",
        ),
        (
            "tls.certificates = [\"c.pem\"]",
            "`certificates` takes tables, not a string",
            "write `certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]`",
        ),
        (
            "tls.certificates = [{ cert = \"c.pem\" }]",
            "`cert` has no `key`",
            "write `key = \"key.pem\"` beside it, its private key; the same file if that has both",
        ),
        ("tls.certificates = [{}]", "a certificate has no `cert`", "write `cert = \"cert.pem\"`"),
        (
            "tls.certificates = [{ cert = \"c\", key = \"k\", oscp = \"o\" }]",
            "unknown key `oscp` in a certificate",
            "did you mean `ocsp`?",
        ),
        (
            "tls = { cert = \"\", key = \"k\" }",
            "`` is not the path of a file",
            "write such as `cert.pem` or `/etc/ssl/cert.pem`",
        ),
        (
            "tls = { self_signed = true, min_version = \"1.1\" }",
            "unknown version of TLS `1.1`",
            "did you mean `1.2`?",
        ),
        (
            "tls = { self_signed = true, min_version = 1.3 }",
            "`min_version` takes a string, not a number",
            "write it in double quotes",
        ),
        (
            "tls = { self_signed = true, client_auth = \"required\" }",
            "`client_auth` says nothing without `client_ca`",
            "write `client_ca = \"ca.pem\"`, the authorities of clients' certificates, or remove it",
        ),
        (
            "tls = { self_signed = true, client_ca = \"c\", client_auth = \"require\" }",
            "unknown way to treat clients `require`",
            "did you mean `required`?",
        ),
        (
            "tls = { self_signed = true, hsts = true }",
            "`hsts` takes a string, not `true`",
            "write it in double quotes",
        ),
        (
            "tls = { self_signed = true, hsts = \"10ms\" }",
            "`10ms` is less than the field can say",
            "write such as `365d`, or `0s` for browsers to forget it",
        ),
        (
            "tls = { self_signed = true, cret = \"c\" }",
            "unknown key `cret` in `tls`",
            "did you mean `cert`?",
        ),
        (
            "redirect_https = \"443\"",
            "`redirect_https` takes `true` or a port, not a string",
            "write `true` for port 443, or the port of the HTTPS listener",
        ),
        ("redirect_https = 0", "`redirect_https` cannot be 0", "write a number from 1 to 65535"),
        (
            "tls = { self_signed = true }\nredirect_https = true",
            "a listener with `tls` has `redirect_https`",
            "remove it; it belongs to the listener of plain HTTP",
        ),
        (
            "http2 = \"on\"",
            "`http2` takes true or false, not a string",
            "write `true` or `false`, without quotes",
        ),
        (
            "proxy_protocol = true",
            "`proxy_protocol` takes a list, not `true`",
            "write `proxy_protocol = [\"10.0.0.0/8\"]`",
        ),
        (
            "proxy_protocol = [\"10.1.0.0/8\"]",
            "`10.1.0.0/8` has bits set behind its prefix",
            "write `10.0.0.0/8` for the network, or `10.1.0.0` for the one address",
        ),
        (
            "timeouts = { handshake = \"0s\" }",
            "`0s` leaves no time at all",
            "write at least `1ms`; a timeout cannot be turned off",
        ),
    ] {
        let found = faults(&listener(rest));
        let [title, place, help] =
            found.clone().try_into().unwrap_or_else(|_| panic!("{rest}: {found:?}"));
        assert_eq!([title.as_str(), help.as_str()], [fault, advice], "{rest}");
        assert!(
            place.starts_with("t.toml:3:") || place.starts_with("t.toml:4:"),
            "{rest}: {place}"
        );
    }
}

#[test]
fn values_of_upstreams_that_cannot_be_say_what_to_write() {
    for (endpoints, rest, fault, advice) in [
        (
            "\"https://a\"",
            "tls = \"ca.pem\"",
            "`tls` takes a table, not a string",
            "write `tls = { ca = \"ca.pem\" }`",
        ),
        (
            "\"https://a\"",
            "tls = { cert = \"c.pem\" }",
            "`cert` has no `key`",
            "write `key = \"key.pem\"` beside it, its private key; the same file if that has both",
        ),
        (
            "\"https://a\"",
            "tls = { server_name = \"a:443\" }",
            "`a:443` is not the name of a server",
            "write the name alone, such as `app.internal`, or an address",
        ),
        (
            "\"https://a\"",
            "tls = { client_ca = \"ca.pem\" }",
            "unknown key `client_ca` in `tls`",
            "known here: `ca`, `server_name`, `cert`, `key` and `insecure_skip_verify`",
        ),
        (
            "\"a:1\"",
            "proxy_protocol = \"2\"",
            "unknown version of the PROXY protocol `2`",
            "did you mean `v2`?",
        ),
        (
            "\"a:1\"",
            "proxy_protocol = true",
            "`proxy_protocol` takes a string, not `true`",
            "write it in double quotes",
        ),
        (
            "\"a:1\", \"h2c://b:1\"",
            "proxy_protocol = \"v1\"",
            "a PROXY header cannot be sent to h2c://b:1",
            "write `http://…`, or remove `proxy_protocol`; `X-Forwarded-For` is sent anyway",
        ),
        (
            "\"h2c://b:1\", \"a:1\"",
            "health = { type = \"grpc\" }",
            "http://a:1 cannot be asked by gRPC, which needs HTTP/2",
            "write `h2c://…` or `https://…`, or a check of another `type`",
        ),
        (
            "\"unix:/run/a.sock\"",
            "health = { type = \"grpc\" }",
            "unix:/run/a.sock cannot be asked by gRPC, which needs HTTP/2",
            "write `h2c://…` or `https://…`, or a check of another `type`",
        ),
        (
            "\"https://a\"",
            "http2 = false\nhealth = { type = \"grpc\" }",
            "https://a:443 cannot be asked by gRPC, which needs HTTP/2",
            "remove `http2 = false` or `proxy_protocol`",
        ),
        (
            "\"https://a\"",
            "proxy_protocol = \"v2\"\nhealth = { type = \"grpc\" }",
            "https://a:443 cannot be asked by gRPC, which needs HTTP/2",
            "remove `http2 = false` or `proxy_protocol`",
        ),
        (
            "\"h2c://a:1\"",
            "health = { type = \"grpc\", path = \"/\" }",
            "a check of type `grpc` has no `path`",
            "remove it, or write `type = \"http\"`",
        ),
        (
            "\"h2c://a:1\"",
            "health = { type = \"tcp\", service = \"a\" }",
            "a check of type `tcp` has no `service`",
            "remove it, or write `type = \"grpc\"`",
        ),
        (
            "\"h2c://a:1\"",
            "health = { service = \"a\" }",
            "a check of type `http` has no `service`",
            "remove it, or write `type = \"grpc\"`",
        ),
        (
            "\"h2c://a:1\"",
            "health = { type = \"gprc\", service = \"a\" }",
            "unknown type of check `gprc`",
            "did you mean `grpc`?",
        ),
        (
            "\"h2c://a:1\"",
            "health = { type = \"grpc\", service = \"a b\" }",
            "`a b` is not the name of a gRPC service",
            "write such as `package.Service`, or leave `service` out for the server as a whole",
        ),
        (
            "\"h2c://a:1\"",
            "retry = { grpc_on = [\"UNAVAILABLE\"] }",
            "`UNAVAILABLE` is not a status of gRPC",
            "did you mean `unavailable`?",
        ),
        (
            "\"h2c://a:1\"",
            "retry = { grpc_on = [14] }",
            "`grpc_on` takes a string, not a number",
            "write it in double quotes",
        ),
        (
            "\"h2c://a:1\"",
            "retry = { grpc_on = \"unavailable\" }",
            "`grpc_on` takes a list, not a string",
            "write `grpc_on = [\"unavailable\"]`",
        ),
        (
            "\"h2c://a:1\"",
            "retry = { grpc_on = [\"ok\"] }",
            "`ok` is no failure",
            "write such as `unavailable` or `resource_exhausted`",
        ),
        (
            "\"unix:run/app.sock\"",
            "",
            "no path of a Unix socket in `unix:run/app.sock`",
            "write an absolute path, such as `unix:/run/app.sock`",
        ),
        (
            "\"unix:///run/app.sock\"",
            "",
            "a host in `unix:///run/app.sock`",
            "write `unix:/run/app.sock`",
        ),
        (
            "\"unix:/run/a.sock\", \"unix:/run/a.sock\"",
            "",
            "the endpoint unix:/run/a.sock is listed twice",
            "write it once, with `weight = 2` for a double share",
        ),
    ] {
        let found = faults(&upstream(endpoints, rest));
        let [title, _, help] =
            found.clone().try_into().unwrap_or_else(|_| panic!("{rest}: {found:?}"));
        assert_eq!([title.as_str(), help.as_str()], [fault, advice], "{rest}");
    }
}
