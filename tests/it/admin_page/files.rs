//! The files of the admin page, without a browser.

use std::{fs, path::Path};

use testshop::routes;

use crate::harness::{TestApp, TestAppBuilder};

/// Size limit of all files together, without compression.
const MAX_BYTES: usize = 80_000;

fn paths() -> Vec<&'static str> {
    routes::summary().into_iter().map(|route| route.path).filter(|path| path.starts_with("/admin/")).collect()
}

#[tokio::test]
async fn files_are_small_and_cacheable_and_allow_no_inline_code() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let mut bytes = 0;
    for path in paths() {
        let file = anonymous.get(path).await;
        assert_eq!(file.status, 200, "{path}");
        bytes += file.body.len();
        let policy = file.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert!(!file.text().contains("http:") && !file.text().contains("https:"), "{path} refers to another host");
        let unchanged = anonymous.with_header("if-none-match", file.header("etag")).get(path).await;
        assert_eq!(unchanged.status, 304, "{path}");
        let compressed = anonymous.with_header("accept-encoding", "gzip").get(path).await;
        assert_eq!(compressed.header("content-encoding"), "gzip", "{path}");
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
    eprintln!("the admin page has {bytes} bytes");
}

#[test]
fn every_script_and_style_is_served() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin_page");
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = names.filter(|name| matches!(name.rsplit_once('.'), Some((_, "js" | "css")))).collect();
    files.sort_unstable();
    let mut served: Vec<_> = paths().into_iter().filter_map(|path| path.strip_prefix("/admin/")).collect();
    served.retain(|name| !name.is_empty());
    served.sort_unstable();
    assert_eq!(files, served);
}

#[tokio::test]
async fn page_can_be_switched_off() {
    let app = TestAppBuilder::default().with("admin-page", "off").spawn().await;
    for path in paths() {
        let response = app.anonymous().get(path).await;
        assert_eq!((response.status.as_u16(), response.text().as_str()), (404, r#"{"detail":"Not found."}"#), "{path}");
    }
    let root = app.anonymous().with_header("accept", "text/html").get("/").await;
    assert!(!root.text().contains("/admin"), "{}", root.text());
}
