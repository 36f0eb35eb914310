//! The list: bursts, paging while records come in, filters, what is withheld, what others have written.

use serde_json::json;

use super::*;

#[tokio::test]
async fn records_stand_by_year_month_and_visit() {
    let site = Site::new(|_| {});
    site.put(
        "disclosure",
        &[
            disclosure("2018-10-19T12:00:00"),
            disclosure("2018-10-19T12:14:59"),
            // Another kind of data, another recipient, and more than a quarter of an hour later.
            disclosure_with("2018-10-19T12:10:00", json!({"tema": "AAP"})),
            disclosure_with("2018-10-19T12:11:00", json!({"mottaker": "310028142"})),
            disclosure("2018-10-19T12:30:00"),
            disclosure("2019-01-02T08:05:00"),
        ],
    )
    .await;
    let list = site.get(KARI, "/my").await;
    assert_eq!(list.status, 200);
    assert!(list.body.contains("<h2>6 entries</h2>"), "{}", list.body);
    assert_eq!(linked(&list.body), [6, 5, 2, 1, 4, 3]);
    assert!(list.body.contains("<caption>October 2018</caption>") && list.body.contains("<h3>2019</h3>"));
    assert_eq!(list.body.matches("<details><summary>").count(), 1);
    assert!(list.body.contains("<summary>19 October, 12:00–12:14: 2 entries</summary>"));
    // What the records of a visit differ in is told for each of them, once.
    let with = |time: &str, supplier: &str| disclosure_with(time, json!({"leverandoer": supplier}));
    let (one, other) = ("310028142", "974761076");
    site.put(
        "disclosure",
        &[
            with("2020-01-01T12:00:00", one),
            with("2020-01-01T12:01:00", other),
            with("2020-01-01T12:02:00", one),
        ],
    )
    .await;
    let visit = site.get(KARI, "/my?from=2020-01-01").await.body;
    assert!(visit.contains(&format!("<bdi>{one}; {other}</bdi>")), "{visit}");
    // One's own, and no other's.
    assert!(site.get(BO, "/my").await.body.contains("Nobody has delivered entries about you"));
    assert_eq!(site.accesses().await, ["MY_LIST"; 3]);
}

#[tokio::test]
async fn pages_stand_still_while_records_come_in() {
    let site = Site::new(|settings| {
        settings.log = ["disclosure", "revision"]
            .map(|name| ShownLog { name: name.into(), fields: Vec::new(), employees: false })
            .into();
    });
    let times =
        |year: i32| (0..70).map(move |n| format!("{year}-{:02}-{:02}T10:00:00", 1 + n / 28, 1 + n % 28));
    for time in times(2020) {
        site.put("disclosure", &[disclosure(&time)]).await;
    }
    let mut seen = Vec::new();
    let mut path = "/my".to_owned();
    loop {
        let page = site.get(KARI, &path).await;
        assert_eq!(page.status, 200, "{path}");
        let ids = linked(&page.body);
        assert!(ids.len() <= PAGE_OF_TESTS);
        seen.extend(ids);
        site.put("disclosure", &[disclosure("2021-01-01T10:00:00")]).await;
        let Some(next) = page.body.split("rel=\"next\" href=\"").nth(1) else { break };
        path = next.split('"').next().expect("a quote").replace("&amp;", "&").replace("&#38;", "&");
    }
    assert_eq!(seen, (1..=70).rev().collect::<Vec<_>>());
    assert_eq!(site.get(KARI, "/my?cursor=disclosure.0").await.status, 200);
    for wrong in
        ["cursor=x", "cursor=disclosure.x", "cursor=disclosure.-1", "from=yesterday", "to=2020-13-01"]
    {
        let page = site.get(KARI, &format!("/my?{wrong}")).await;
        assert_eq!(page.status, 400, "{wrong}");
        assert!(page.body.contains("cannot be understood"));
    }
}

/// Records of a page.
pub const PAGE_OF_TESTS: usize = crate::pages::list::PAGE;

#[tokio::test]
async fn filters_find_what_fits_and_stand_as_chips() {
    let site = Site::new(|settings| {
        let name = Some("Pensjon <AS>".to_owned());
        settings.organisation.insert("974761076".into(), Organisation { name, contact: None });
    });
    site.put(
        "disclosure",
        &[
            disclosure("2018-10-19T23:59:59"),
            disclosure_with("2018-10-20T00:00:00", json!({"tema": "AAP"})),
            disclosure_with("2018-10-21T12:11:00", json!({"mottaker": "310028142"})),
        ],
    )
    .await;
    for (query, expected) in [
        ("from=2018-10-20", &[3, 2][..]),
        ("to=2018-10-19", &[1]),
        ("from=2018-10-20&to=2018-10-20", &[2]),
        ("recipient=310028142", &[3]),
        ("recipient=pensjon", &[2, 1]),
        ("topic=aap", &[2]),
        ("topic=AAP&recipient=310028142", &[]),
        ("log=disclosure", &[3, 2, 1]),
        ("log=other", &[]),
        ("from=2030-01-01", &[]),
    ] {
        let page = site.get(KARI, &format!("/my?{query}")).await;
        assert_eq!(linked(&page.body), expected, "{query}");
        assert_eq!(page.body.matches("Remove the filter").count(), query.matches('=').count(), "{query}");
        assert_eq!(page.body.contains("No more entries match"), expected.is_empty(), "{query}");
    }
    let page = site.get(KARI, "/my?topic=AAP&from=2018-10-20").await.body;
    assert!(page.contains("1 entry matches") && page.contains("href=\"/my?from=2018-10-20\""), "{page}");
    assert!(page.contains("Pensjon &lt;AS&gt;") || page.contains("Pensjon &#60;AS&#62;"));
}

#[tokio::test]
async fn what_is_withheld_is_nowhere_and_says_until_when() {
    let recent = (chrono::Local::now() - chrono::TimeDelta::days(2)).format("%Y-%m-%dT%H:%M:%S").to_string();
    let site = Site::new(|settings| {
        let embargo = |topic: &str, fields: &[&str]| Embargo {
            log: "disclosure*".into(),
            topic: Some(topic.into()),
            organisation: None,
            fields: fields.iter().map(ToString::to_string).collect(),
            days: 10,
        };
        settings.embargo = vec![embargo("KON", &[]), embargo("AAP", &["behandlingsGrunnlag", "leverteData"])];
    });
    let with = |topic: &str, time: &str| {
        disclosure_with(time, json!({"tema": topic, "behandlingsGrunnlag": "secret ground"}))
    };
    site.put("disclosure", &[with("KON", &recent), with("AAP", &recent), with("KON", "2018-10-19T12:00:00")])
        .await;
    let list = site.get(KARI, "/my").await.body;
    assert_eq!(list.matches("This entry is withheld until").count(), 1, "{list}");
    assert_eq!(list.matches("A part is withheld until").count(), 1);
    assert_eq!(list.matches("secret ground").count(), 1);
    for (id, hidden) in
        [(1, &["secret ground", "KON", "974761076"][..]), (2, &["secret ground", "leverteData"])]
    {
        let record = site.get(KARI, &format!("/my/disclosure/{id}")).await.body;
        assert!(record.contains("withheld until"), "{record}");
        assert!(hidden.iter().all(|hidden| !record.contains(hidden)), "{record}");
        assert_eq!(site.get(KARI, &format!("/my/disclosure/{id}/proof")).await.status, 403);
        assert_eq!(site.get(KARI, &format!("/my/disclosure/{id}?raw=behandlingsGrunnlag")).await.status, 404);
    }
    assert_eq!(site.get(KARI, "/my/disclosure/3/proof").await.status, 200);
    for format in ["csv", "json"] {
        let export = site.get(KARI, &format!("/my/export?format={format}")).await.body;
        assert_eq!(export.matches("secret ground").count(), 1, "{export}");
        assert_eq!(export.matches("eyJhIjoxfQ==").count(), 1);
    }
    // A filter does not tell what is withheld.
    assert_eq!(linked(&site.get(KARI, "/my?topic=KON").await.body), [3]);
}

#[tokio::test]
async fn other_logs_show_units_and_no_employee() {
    let site = Site::new(|settings| {
        settings.log = vec![ShownLog { name: "revision".into(), fields: Vec::new(), employees: false }];
    });
    let look_up = json!({
        "TransaktionsId": "t1", "TransaktionsTid": "2021-11-10T04:03:47", "BrugerId": "user-17", "BrugerNavn": "Ola Ansat",
        "KalderOrganisation": "64942212", "KalderItSystemInstans": "system-1", "KalderItSystemNavn": "KY",
        "BrugerOrganisationEnhedNavn": "Borgerservice", "Note": "Sag vist", "BorgerId": BO, "KalderIP": "10.1.2.3",
        "remarks": "[{\"field\":\"BrugerId\",\"rule\":\"uuid\",\"text\":\"user-17\"}]",
    });
    site.put("revision", &[look_up]).await;
    let (list, record) = (site.get(BO, "/my").await.body, site.get(BO, "/my/revision/1").await.body);
    let export = site.get(BO, "/my/export?format=json").await.body;
    for page in [&list, &record, &export] {
        for shown in ["64942212", "Borgerservice", "Sag vist", "KY"] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        for hidden in ["user-17", "Ola Ansat", "10.1.2.3", "unexpected form"] {
            assert!(!page.contains(hidden), "{hidden}: {page}");
        }
    }
    assert!(record.contains("Somebody at <strong><bdi>64942212</bdi></strong>"));
    // A proof holds the employee's name.
    assert_eq!(site.get(BO, "/my/revision/1/proof").await.status, 403);
}

#[tokio::test]
async fn sources_are_told_in_words() {
    let site = Site::new(|settings| {
        settings.log = ["disclosure", "revision"]
            .map(|name| ShownLog { name: name.into(), fields: Vec::new(), employees: false })
            .into();
    });
    site.put("disclosure", &[disclosure("2018-10-19T12:00:00")]).await;
    let look_up = json!({
        "TransaktionsId": "t1", "TransaktionsTid": "2021-11-10T04:03:47", "BrugerId": "user-17",
        "KalderOrganisation": "64942212", "KalderItSystemInstans": "system-1", "BorgerId": BO,
    });
    site.put("revision", &[look_up]).await;
    let list = site.get(KARI, "/my?log=disclosure").await.body;
    let option = "<option value=\"disclosure\" selected>Disclosures of data (disclosure)</option>";
    assert!(list.contains(option), "{list}");
}
