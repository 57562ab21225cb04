//! nginx as an endpoint, by TLS and in HTTP/2.

use std::path::Path;

use super::curl;
use crate::support::certificates::{Authority, Folder, Pair};
use crate::support::program::{Serving, run};
use crate::support::{Tinylb, config, eventually};

/// nginx, serving what it knows of each request, and `big` from its folder.
struct Nginx {
    port: u16,
    _folder: Folder,
    _serving: Serving,
}

impl Nginx {
    /// Starts it with `listen` behind its port and with further `directives`; `None` where it is not
    /// installed.
    fn start(listen: &str, directives: &str) -> Option<Self> {
        loop {
            // nginx has to be told its port. One of these the kernel gives to nobody by itself.
            let port = fastrand::u16(10_000..30_000);
            let folder = Folder::new();
            std::fs::write(folder.path("big"), super::megabyte()).unwrap();
            let file = folder.write("nginx.conf", text(&folder, port, listen, directives));
            let mut serving = Serving::start("nginx", &["-c", &file])?;
            // It is written once nginx listens.
            let pid = folder.path("pid");
            let is_serving = eventually("nginx listens, or ends", || {
                let is_serving = Path::new(&pid).exists();
                (is_serving || !serving.is_running()).then_some(is_serving)
            });
            if is_serving {
                return Some(Self { port, _folder: folder, _serving: serving });
            }
            assert!(serving.has_said("Address already in use"));
        }
    }

    /// The same with TLS, with the certificate of `pair`, for clients of `authority`.
    fn secure(pair: &Pair, authority: &Authority) -> Option<Self> {
        let Pair { cert, key } = pair;
        let ca = authority.ca();
        let directives = format!(
            "ssl_certificate {cert}; ssl_certificate_key {key};
             ssl_client_certificate {ca}; ssl_verify_client on;"
        );
        Self::start("ssl http2", &directives)
    }
}

fn text(folder: &Folder, port: u16, listen: &str, directives: &str) -> String {
    let path = folder.path("");
    format!(
        "daemon off; master_process off; user root; pid {path}/pid; error_log stderr;
         events {{}}
         http {{
             access_log off;
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
             fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;
             scgi_temp_path {path}/scgi;
             server {{
                 listen 127.0.0.1:{port} {listen};
                 {directives}
                 root {path};
                 location / {{
                     return 200 \"$server_protocol $host $ssl_server_name $ssl_client_s_dn\\n\";
                 }}
                 location /big {{ }}
             }}
         }}\n"
    )
}

#[test]
fn https_is_spoken_in_both_versions_with_a_certificate_of_our_own() {
    let authority = Authority::new("Everybody");
    let pair = authority.server("app", &["app.test"]);
    let own = authority.client("own", "tinylb");
    let Some(nginx) = Nginx::secure(&pair, &authority) else { return };
    for (http2, version) in [(true, "HTTP/2.0"), (false, "HTTP/1.1")] {
        let upstream = format!(
            "http2 = {http2}\ntls = {{ ca = {:?}, server_name = \"app.test\", {} }}",
            authority.ca(),
            own.keys(),
        );
        let endpoint = format!("https://127.0.0.1:{}", nginx.port);
        let tinylb = Tinylb::run(&config(&[endpoint], "", &upstream));
        let Some(ran) = curl(tinylb.address(), &["http://a.test/"]) else { return };
        let expected = format!("{version} a.test app.test CN=tinylb,O=Ours\\, Inc.\n");
        assert_eq!(ran.ok().text(), expected);
        let big = curl(tinylb.address(), &["http://a.test/big"]).unwrap();
        assert!(big.ok().stdout == super::megabyte());
        // It closes each connection after this many requests.
        let url = format!("http://{}/", tinylb.address());
        let load = ["-n", "5000", "-c", "4", "-m", "20", &url];
        let Some(ran) = run("h2load", &load, b"") else { continue };
        super::nghttp2::assert_all_served(&ran.ok().text(), 5000);
    }
}

#[test]
fn who_is_somebody_else_is_not_asked() {
    let (authority, others) = (Authority::new("Ours"), Authority::new("Others"));
    let pair = authority.server("app", &["app.test"]);
    let own = authority.client("own", "tinylb");
    let Some(nginx) = Nginx::secure(&pair, &authority) else { return };
    for (ca, name) in [(authority.ca(), "elsewhere.test"), (others.ca(), "app.test")] {
        let upstream = format!("tls = {{ ca = {ca:?}, server_name = {name:?}, {} }}", own.keys());
        let endpoint = format!("https://127.0.0.1:{}", nginx.port);
        let tinylb = Tinylb::run(&config(&[endpoint], "", &upstream));
        let response = tinylb.get("/");
        assert_eq!(response.status, 502, "{name}");
        let status = response.head.get("proxy-status").unwrap();
        assert!(status.contains("error=tls_certificate_error"), "{status}");
    }
}

#[test]
fn http_2_is_spoken_without_tls() {
    let Some(nginx) = Nginx::start("http2", "keepalive_requests 50;") else { return };
    let endpoint = format!("h2c://127.0.0.1:{}", nginx.port);
    let tinylb = Tinylb::run(&config(&[endpoint], "", ""));
    let Some(ran) = curl(tinylb.address(), &["http://a.test/"]) else { return };
    assert_eq!(ran.ok().text(), "HTTP/2.0 a.test  \n");
    let url = format!("http://{}/", tinylb.address());
    for options in [&[][..], &["--h1"]] {
        let load = ["-n", "5000", "-c", "4", "-m", "20", &url];
        let Some(ran) = run("h2load", &[options, &load].concat(), b"") else { return };
        super::nghttp2::assert_all_served(&ran.ok().text(), 5000);
    }
    let big = curl(tinylb.address(), &["http://a.test/big"]).unwrap();
    assert!(big.ok().stdout == super::megabyte());
}
