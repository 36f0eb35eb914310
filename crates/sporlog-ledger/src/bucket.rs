//! An S3-compatible bucket as an object store.
//!
//! Where the bucket is reached, and as whom, says the environment that all programs for S3 share (`AWS_ENDPOINT_URL`,
//! `AWS_REGION`, `AWS_ACCESS_KEY_ID`, …, or the identity of the machine).

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, Error, RetryConfig};
use url::Url;

/// For so long a request is tried again that the bucket answers with a passing failure: a time-out, 503 SlowDown, a
/// connection that was cut. Whoever waits for the answer is told after it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What an address has to look like.
pub(crate) const SUPPORTED: &str = "a folder, file:///FOLDER or s3://BUCKET/PREFIX is expected (s3 is any store that speaks Amazon S3's protocol)";

/// The bucket of a URL `s3://bucket/prefix`, and the prefix.
pub(crate) fn open(url: &Url) -> Result<(AmazonS3, Path), String> {
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket.ok_or("a bucket is missing: s3://BUCKET/PREFIX is expected")?;
    if !url.username().is_empty() || url.port().is_some() || url.query().or(url.fragment()).is_some() {
        return Err(
            "s3://BUCKET/PREFIX is expected, and nothing else in it: the endpoint and the credentials are \
                    taken from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)"
                .into(),
        );
    }
    let prefix = Path::from_url_path(url.path()).map_err(|e| e.to_string())?;
    let backoff = BackoffConfig { init_backoff: FIRST_PAUSE, max_backoff: LONGEST_PAUSE, base: 2.0 };
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        // What decides between two writers: nothing may turn it off.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig { backoff, max_retries: 1_000, retry_timeout: PATIENCE });
    let set = |key| builder.get_config_value(&key);
    let endpoint = set(AmazonS3ConfigKey::S3Endpoint).or_else(|| set(AmazonS3ConfigKey::Endpoint));
    if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.starts_with("http://")) {
        let allowed = set(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        if allowed.as_deref() != Some("true") {
            return Err(format!(
                "the endpoint {endpoint} is not encrypted: use https://, or set AWS_ALLOW_HTTP=true in a network that \
                 nobody else can read"
            ));
        }
    }
    Ok((builder.build().map_err(|e| e.to_string())?, prefix))
}

/// Whether the bucket itself is not there, and not just an object in it.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { source, .. } if source.to_string().contains("NoSuchBucket"))
}

/// Whether an object was not removed because it is not there: some stores say so if another request has just removed the object.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) || error.to_string().contains("NoSuchKey")
}

/// The same error, as a person can read it: of an answer in XML, what it says.
pub(crate) fn in_words(error: Error) -> Error {
    let text = error.to_string();
    let part = |name: &str| Some(text.split_once(&format!("<{name}>"))?.1.split_once("</")?.0);
    let source = match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("the bucket answers {code}: {message}"),
        _ if text.contains("/latest/api/token") => {
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and this machine has no identity that a bucket could \
             know"
                .into()
        }
        _ => return error,
    };
    let source = source.into();
    match error {
        Error::NotFound { path, .. } => Error::NotFound { path, source },
        Error::AlreadyExists { path, .. } => Error::AlreadyExists { path, source },
        Error::Precondition { path, .. } => Error::Precondition { path, source },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied { path, source },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated { path, source },
        Error::Generic { store, .. } => Error::Generic { store, source },
        other => other,
    }
}

/// How long to wait before the attempt after `attempt`, which counts from 0.
pub(crate) fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_xml_is_put_into_words() {
        let answer =
            "404: <Error><Code>NoSuchBucket</Code><Message>There is none.</Message><Id>7</Id></Error>";
        let error = in_words(Error::NotFound { path: "x".into(), source: answer.into() });
        assert!(is_missing(&error));
        assert_eq!(
            error.to_string(),
            "Object at location x not found: the bucket answers NoSuchBucket: There is none."
        );
        assert!(!is_missing(&Error::NotFound {
            path: "x".into(),
            source: "404: <Code>NoSuchKey</Code>".into()
        }));
        let failed = |code| {
            let source = format!("DeleteObjects request failed for key x: It failed (code: {code})").into();
            Error::Generic { store: "S3", source }
        };
        assert!(is_gone(&failed("NoSuchKey")) && !is_gone(&failed("AccessDenied")));
    }

    #[test]
    fn what_an_address_lacks_is_named() {
        for (url, wanted) in [
            ("s3:///prefix", "a bucket is missing"),
            ("s3://user@bucket/x", "nothing else"),
            ("s3://bucket:9000/x", "nothing else"),
            ("s3://bucket/x?region=y", "nothing else"),
        ] {
            let error = open(&Url::parse(url).expect("a URL")).expect_err(url);
            assert!(error.contains(wanted), "{url}: {error}");
        }
    }
}
