//! Requests under way at once: a person holds a share of the permits, from wherever they ask.

use axum::response::Response;

use super::*;
use crate::server::Limits;

/// Each person's and each address's share is two.
const REQUESTS: usize = 8;
const SHARE: u8 = 2;

/// Asks from this address, through a proxy; an answer that is not dropped holds its permit.
async fn begin(router: &Router, app: &App, address: u8, person: &str, path: &str) -> Response {
    let request = Request::get(path)
        .header("cookie", cookie_of(app, person))
        .header("x-forwarded-for", format!("192.0.2.{address}"));
    router.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("answered")
}

#[tokio::test]
async fn a_persons_requests_take_no_more_than_a_persons_share_from_any_number_of_addresses() {
    let site = Site::new(|_| {});
    site.put("disclosure", &[disclosure("2018-10-19T12:00:00")]).await;
    let settings = ServerSettings {
        trusted_proxies: vec!["0.0.0.0".parse().expect("an address")],
        limits: Limits { requests: REQUESTS, ..Limits::default() },
        ..ServerSettings::default()
    };
    let router = layers(served(site.app.clone()), &settings, Rates::new(&Default::default()), []);
    for (path, share) in [
        ("/my", SHARE),
        ("/my?log=access", SHARE),
        ("/my/disclosure/1", SHARE),
        ("/about", SHARE),
        ("/", SHARE),
        // Exports have a class of their own.
        ("/my/export?format=csv", 4),
    ] {
        let mut held = Vec::new();
        for address in 0..share {
            let answer = begin(&router, &site.app, address, KARI, path).await;
            assert_eq!(answer.status(), 200, "{path}");
            held.push(answer);
        }
        let refused = begin(&router, &site.app, share, KARI, path).await;
        assert_eq!(refused.status(), 503, "{path}: beyond a person's share");
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(begin(&router, &site.app, 0, BO, "/my").await.status(), 200, "{path}: others are served");
        drop(held);
        assert_eq!(begin(&router, &site.app, share, KARI, path).await.status(), 200, "{path}");
    }
}
