//! Who may see what at which address: nobody, the person, another person, and a key of the API.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn every_role_against_every_address() {
    let site = Site::new(|_| {});
    site.put("disclosure", &[disclosure("2018-10-19T12:00:00")]).await;
    const OPEN: [u16; 3] = [200, 200, 200];
    const OWN: [u16; 3] = [303, 200, 404];
    for (path, expected) in [
        ("/", OPEN),
        ("/about", OPEN),
        ("/check", OPEN),
        ("/assets/style.css", OPEN),
        ("/assets/check.js", OPEN),
        ("/assets/logo", [404; 3]),
        ("/assets/..%2Fstyle.css", [404; 3]),
        ("/my", [303, 200, 200]),
        ("/my?log=access", [303, 200, 200]),
        ("/my/export?format=csv", [303, 200, 200]),
        ("/my/export?format=json", [303, 200, 200]),
        ("/my/export?format=xml", [303, 400, 400]),
        ("/my/disclosure/1", OWN),
        ("/my/disclosure/1?raw=leverteData", OWN),
        ("/my/disclosure/1?raw=leverteDataEncoding", [303, 404, 404]),
        ("/my/disclosure/1/proof", OWN),
        ("/my/disclosure/2", [303, 404, 404]),
        ("/my/disclosure/0", [303, 404, 404]),
        ("/my/disclosure/01x", [303, 404, 404]),
        ("/my/disclosure/18446744073709551616", [303, 404, 404]),
        ("/my/access/1", [303, 404, 404]),
        ("/my/quarantine/1", [303, 404, 404]),
        ("/my/revision/1", [303, 404, 404]),
        ("/my/nothing/1", [303, 404, 404]),
        ("/my/..%2Fkeys/1", [303, 404, 404]),
        ("/my/disclosure%2F..%2Fx/1", [303, 404, 404]),
        ("/my/disclosure-none/1", [303, 404, 404]),
    ] {
        for (who, expected) in ["", KARI, BO].into_iter().zip(expected) {
            let answer = site.get(who, path).await;
            assert_eq!(answer.status, expected, "{path} for '{who}'");
            if expected == 303 {
                assert_eq!(answer.headers["location"], "/");
            }
            assert!(
                !answer.body.contains(KARI) || path.contains("export") || path.contains("proof"),
                "{path}"
            );
        }
        // A key of the API, or a cookie that is none of ours, opens no page.
        for header in
            [("apikey", "sporlog_x"), ("cookie", "sporlog-session=x"), ("authorization", "Bearer x")]
        {
            assert_eq!(site.ask(path, &[header]).await.status, expected[0], "{path} with {header:?}");
        }
    }
    // What is answered with 404 or 400 shows nothing, and is not recorded.
    let recorded = site.accesses().await;
    assert_eq!(recorded.iter().filter(|action| *action == "MY_RECORD").count(), 3, "{recorded:?}");
}

#[tokio::test]
async fn at_an_address_without_a_page_a_browser_gets_one_that_says_so() {
    let site = Site::new(|_| {});
    for path in ["/my/", "/nothing", "//elsewhere.example/my", "/my/disclosure/1/more?x=y"] {
        let page = site.ask(path, &[("accept", "text/html,*/*;q=0.8"), ("accept-language", "en")]).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.body.contains("There is no page at this address"), "{}", page.body);
        assert!(
            page.body.contains("href=\"/?lang=da\"") && !page.body.contains("elsewhere"),
            "{}",
            page.body
        );
        let problem = site.ask(path, &[("accept", "*/*")]).await;
        assert_eq!(
            (problem.status, &problem.headers["content-type"]),
            (page.status, &"application/problem+json".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn another_persons_record_is_as_one_that_does_not_exist() {
    let site = Site::new(|_| {});
    for _ in 0..20 {
        site.put("disclosure", &[disclosure("2018-10-19T12:00:00")]).await;
    }
    // One session, so that the forms' tokens are the same.
    let cookie = cookie_of(&site.app, BO);
    let headers = [("cookie", cookie.as_str()), ("accept-language", "en")];
    let theirs = site.ask("/my/disclosure/7", &headers).await;
    let none = site.ask("/my/disclosure/7000", &headers).await;
    assert_eq!((theirs.status, none.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    // What stands before is the session's, and the links to other languages, which hold the address.
    let main = |answer: &Answer| answer.body.split_once("<main").expect("a main part").1.to_owned();
    assert_eq!(main(&theirs), main(&none));
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..30 {
        for (of, path) in ["/my/disclosure/7", "/my/disclosure/7000"].into_iter().enumerate() {
            let began = Instant::now();
            site.get(BO, path).await;
            if round > 4 {
                times[of].push(began.elapsed());
            }
        }
    }
    // The quickest of many: what else runs on the machine only makes answers slower.
    let [theirs, none] = times.map(|times| times.into_iter().min().expect("times"));
    assert!(theirs < 2 * none && none < 2 * theirs, "{theirs:?} and {none:?}");
}

#[tokio::test]
async fn the_language_is_chosen_by_address_cookie_or_browser() {
    let site = Site::new(|_| {});
    for (path, header, lang) in [
        ("/", ("accept-language", "da-DK,da;q=0.9"), "da"),
        ("/", ("accept-language", "no"), "nb"),
        ("/", ("accept-language", "fr"), "nb"),
        ("/", ("cookie", "a=b; lang=en"), "en"),
        ("/?lang=da", ("cookie", "lang=en"), "da"),
        ("/?lang=xx", ("cookie", "lang=en"), "en"),
    ] {
        let page = site.ask(path, &[header]).await;
        assert!(page.body.contains(&format!("<html lang=\"{lang}\">")), "{path} {header:?}");
        assert_eq!(page.headers.contains_key("set-cookie"), path == "/?lang=da", "{path}");
    }
    let page = site.ask("/check?x=%22%3E%3Cscript%3E", &[]).await;
    assert!(page.body.contains("/check?lang=da&#38;x=%22%3E%3Cscript%3E"), "{}", page.body);
}
