//! Where to listen, as text: the same in the file and on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::model::{EndpointHost, EndpointUrl, HostPattern, ListenAddress};
use super::url::{parse_port, parse_socket_path};
use super::values::{ValueError, quote};

/// Where the admin address is if nobody says otherwise: only this machine reaches it.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// What the address of clients is that come by a Unix socket: they are on this machine, and have no other.
pub const UNIX_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl ListenAddress {
    /// Whether both cannot be listened on at once. The kernel's choice, port 0, never collides.
    pub fn collides(&self, other: &Self) -> bool {
        let ((ip, port), (other_ip, other_port)) = match (self, other) {
            (Self::Ip { ip, port }, Self::Ip { ip: other_ip, port: other_port }) => {
                ((ip, *port), (other_ip, *other_port))
            }
            _ => return self == other,
        };
        let overlap = match (some_ip(*ip), some_ip(*other_ip)) {
            (None, _) | (_, None) => true,
            (Some(a), Some(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
        };
        overlap && port == other_port && port != 0
    }

    /// Whether a connection to `url` from this machine ends here, as far as the text tells.
    pub fn is_dialled_by(&self, url: &EndpointUrl) -> bool {
        let (own, port) = match self {
            Self::Ip { ip, port } => (some_ip(*ip), *port),
            Self::Unix(own) => {
                return matches!(&url.host, EndpointHost::Unix(path) if path == own);
            }
        };
        let dialled: &[IpAddr] = match &url.host {
            EndpointHost::Ip(ip) => &[*ip],
            EndpointHost::Name(name) if name == "localhost" => {
                &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            EndpointHost::Name(_) | EndpointHost::Unix(_) => &[],
        };
        let here = |ip: &IpAddr| match own {
            None => ip.is_loopback(),
            Some(own) if own.is_unspecified() => ip.is_loopback() && ip.is_ipv4() == own.is_ipv4(),
            Some(own) => own == *ip,
        };
        port == url.port && dialled.iter().any(here)
    }
}

/// The local address; `None` where it is every one of both families, as `[::]` also is.
fn some_ip(ip: Option<IpAddr>) -> Option<IpAddr> {
    ip.filter(|ip| *ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip { ip: Some(address.ip()), port: address.port() }
    }
}

impl FromStr for ListenAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let help = |what: &str| {
            ValueError::new(format!("{} is not an address to listen on", quote(text)), what)
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_socket_path(path).map(Self::Unix);
        }
        if let Some(port) = text.strip_prefix(':').and_then(parse_port) {
            return Ok(Self::Ip { ip: None, port });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address {
                SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                    Err(help("write the address without its zone"))
                }
                address => {
                    Ok(Self::Ip { ip: Some(address.ip().to_canonical()), port: address.port() })
                }
            };
        }
        match text.rsplit_once(':') {
            None if parse_port(text).is_some() => Err(help(&format!("write `:{text}`"))),
            Some(("localhost", port)) if parse_port(port).is_some() => {
                Err(help(&format!("write `127.0.0.1:{port}` or `[::1]:{port}`")))
            }
            Some(("*", port)) if parse_port(port).is_some() => {
                Err(help(&format!("write `:{port}` for every address")))
            }
            _ => Err(help(
                "write `:8080` for every address, or `127.0.0.1:8080`, `[::1]:8080` or `unix:/path`",
            )),
        }
    }
}

/// Where the admin address listens, or that there is none: `127.0.0.1:9900` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

impl FromStr for AdminAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self(None));
        }
        let help = "write `127.0.0.1:9900` for this machine only, or `off`";
        match text.parse::<ListenAddress>() {
            Ok(ListenAddress::Ip { ip: Some(ip), port }) => {
                Ok(Self(Some(SocketAddr::new(ip, port))))
            }
            // Whoever reaches the admin address sees everything, so every address is asked for
            // in full.
            Ok(ListenAddress::Ip { ip: None, port }) => Err(ValueError::new(
                format!("{} would open the admin address to every network", quote(text)),
                format!("write `127.0.0.1:{port}` for this machine only, or `0.0.0.0:{port}`"),
            )),
            Ok(ListenAddress::Unix(_)) | Err(_) => {
                Err(ValueError::new(format!("{} is not an admin address", quote(text)), help))
            }
        }
    }
}

/// Parses a host name for `hosts` of `[admin]`, and returns it in lower case.
///
/// # Errors
/// `text` is not a host name, or is a pattern.
pub fn parse_host_name(text: &str) -> Result<String, ValueError> {
    match text.parse::<HostPattern>() {
        Ok(HostPattern::Exact(name)) => Ok(name),
        Ok(HostPattern::Suffix(_)) | Err(_) => Err(ValueError::new(
            format!("{} is not a host name", quote(text)),
            "write the name alone, such as `lb.example.com`, without a port",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in [
            ":8080",
            ":0",
            "127.0.0.1:8080",
            "[::1]:8080",
            "0.0.0.0:1",
            "[::]:65535",
            "unix:/a b/c",
        ] {
            assert_eq!(listen(text).to_string(), text);
        }
        assert_eq!(listen("[::ffff:127.0.0.1]:80").to_string(), "127.0.0.1:80");
    }

    #[test]
    fn other_spellings_are_corrected() {
        const ANYTHING: &str =
            "write `:8080` for every address, or `127.0.0.1:8080`, `[::1]:8080` or `unix:/path`";
        for (text, help) in [
            ("8080", "write `:8080`"),
            ("*:8080", "write `:8080` for every address"),
            ("localhost:8080", "write `127.0.0.1:8080` or `[::1]:8080`"),
            ("", ANYTHING),
            (":65536", ANYTHING),
            ("/run/tinylb.sock", ANYTHING),
            ("unix:tinylb.sock", "write an absolute path, such as `unix:/run/app.sock`"),
            ("unix:///run/tinylb.sock", "write `unix:/run/tinylb.sock`"),
            ("[fe80::1%3]:80", "write the address without its zone"),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap_err().help(), help, "{text}");
        }
    }

    #[test]
    fn collisions_are_symmetric_and_know_families() {
        for (a, b, collide) in [
            (":80", ":80", true),
            (":80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            (":80", ":81", false),
            (":0", ":0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            assert_eq!(listen(a).collides(&listen(b)), collide, "{a} {b}");
            assert_eq!(listen(b).collides(&listen(a)), collide, "{b} {a}");
        }
    }

    #[test]
    fn a_listener_knows_endpoints_that_are_itself() {
        for (address, url, itself) in [
            (":8080", "http://localhost:8080", true),
            (":8080", "http://127.0.0.1:8080/base", true),
            (":8080", "http://10.0.0.1:8080", false),
            (":8080", "http://localhost:8081", false),
            ("[::]:8080", "http://127.0.0.1:8080", true),
            ("0.0.0.0:8080", "http://[::1]:8080", false),
            ("127.0.0.1:8080", "http://127.0.0.2:8080", false),
            ("10.0.0.1:8080", "http://10.0.0.1:8080", true),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            (":8080", "unix:/a", false),
        ] {
            let url = url.parse().unwrap();
            assert_eq!(listen(address).is_dialled_by(&url), itself, "{address} {url}");
        }
    }

    #[test]
    fn the_admin_address_is_never_open_by_accident() {
        assert_eq!("off".parse(), Ok(AdminAddress(None)));
        assert_eq!("127.0.0.1:9900".parse(), Ok(AdminAddress(Some(DEFAULT_ADMIN))));
        let wrong = ":9900".parse::<AdminAddress>().unwrap_err();
        assert!(wrong.help().contains("`127.0.0.1:9900` for this machine only"), "{wrong}");
        assert!("on".parse::<AdminAddress>().is_err());
        assert!("unix:/run/admin.sock".parse::<AdminAddress>().is_err());
    }
}
