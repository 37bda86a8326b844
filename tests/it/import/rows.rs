//! The effect of each row, and its errors.

use rust_xlsxwriter::{Format, Formula, Workbook};
use serde_json::{Value, json};

use super::{XLSX, exact_number, report};
use crate::harness::{TestApp, product_names};

#[tokio::test]
async fn rows_with_id_update_and_rows_without_id_create() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.batch_execute("insert into categories (name) values ('Books')").await;
    let staff = app.create_staff("sam").await;
    let response = staff
        .import_csv(
            "",
            "1,Product 1,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n\
             2, Renamed ,,Books,7,2024-01-01,\"new,rare , new\"\n\
             3,Product 3,Number 3,Sport,+3.99,2023-08-08T14:00:00+02:00,\"new,eco\"\n\
             ,'=1+1,Fresh,Books,0.10,2020-02-29T01:02:03.000004Z,rare\n\
             \n\
             ,Now,,Sport,5,,\n",
        )
        .await;
    assert_eq!(response.status_and_json(), (200, report(2, 1, 2)), "{}", response.text());
    let list = staff.get("/api/products/").await.json();
    assert_eq!(product_names(&list), ["Product 1", "Renamed", "Product 3", "=1+1", "Now"]);
    let expected = json!({
        "id": 2, "name": "Renamed", "description": "", "category_name": "Books", "price": exact_number("7.00"),
        "created_at": "2024-01-01T00:00:00Z", "tags": ["new", "rare"],
    });
    assert_eq!(list[1], expected);
    assert_eq!(list[3]["created_at"], "2020-02-29T01:02:03.000004Z");
    assert_eq!((&list[3]["price"], &list[3]["tags"]), (&exact_number("0.10"), &json!(["rare"])));
    assert_eq!(list[4]["tags"], json!([]));

    // row numbers are those of a spreadsheet: empty lines count, line breaks in a cell do not
    let numbered = staff.import_csv("", "\n,A,\"two\nlines\",Sport,x,,\n\r\n\n,B,,Sport,x,,").await.json();
    assert_eq!((&numbered["errors"][0]["row"], &numbered["errors"][1]["row"]), (&json!(3), &json!(6)));
}

/// Prices and ids as programs write them, and cells that show the stored moment of `Created at`.
#[tokio::test]
async fn cells_that_show_the_stored_value_are_no_change() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.execute("update products set price = id, created_at = '2026-11-23T13:01:47.542885Z'", &[]).await;
    let staff = app.create_staff("sam").await;
    for [id, price, moment] in [
        ["1", "1", "2026-11-23T13:01:47.542885Z"],
        ["1.0", "1.0", "2026-11-23T13:01:47.542Z"],
        ["1E+00", "1E+00", "2026-11-23 13:01:47.543"],
        ["01", "+1", "2026-11-23 13:01:47"],
        [" 1 ", "1.00", "2026-11-23T13:01:48Z"],
        ["1.00", ".1e1", "2026-11-23 14:01:48 +01:00"],
        ["1", "1", "2026-11-23 13:01"],
        ["1", "1", "2026-11-23 13:02"],
        ["1", "1", "2026-11-23"],
        ["1", "1", ""],
        ["2.0E+00", "0.2E+1", " "],
    ] {
        let file = format!("ID,Price,Created at\n{id},{price},{moment}\n");
        let response = staff.import("", "text/csv", file).await;
        assert_eq!(response.status_and_json(), (200, report(0, 0, 1)), "{id} {price} {moment}");
    }
    for [price, moment] in [
        ["1.01", ""],
        ["1", "2026-11-23T13:01:47.542884Z"],
        ["1", "2026-11-23 13:01:46"],
        ["1", "2026-11-23 13:01:49"],
        ["1", "2026-11-23 13:00"],
        ["1", "2026-11-24"],
    ] {
        let file = format!("ID,Price,Created at\n1,{price},{moment}\n");
        let response = staff.import("?dry_run=true", "text/csv", file).await;
        assert_eq!(response.status_and_json(), (200, report(0, 1, 0)), "{price} {moment}");
    }
    for id in ["1.5", "1E-1", "9007199254740993.5", "1,0", "NaN", "1e99"] {
        let response = staff.import("", "text/csv", format!("ID,Price\n\"{id}\",1\n")).await;
        assert_eq!(response.json()["errors"], json!([{"row": 2, "id": ["A valid integer is required."]}]), "{id}");
    }
}

#[tokio::test]
async fn missing_column_keeps_stored_values() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let response = staff.import("", "text/csv", "price, id \n8.50,2\n1.99,1\n").await;
    assert_eq!(response.status_and_json(), (200, report(0, 1, 1)));
    let list = staff.get("/api/products/").await.json();
    let expected = json!({
        "id": 2, "name": "Product 2", "description": "Number 2", "category_name": "Sport",
        "price": exact_number("8.50"), "created_at": "2023-08-08T12:00:00Z", "tags": ["eco", "new"],
    });
    assert_eq!(list[1], expected);
    let response = staff.import("", "text/csv", "name\nNew\n").await;
    let errors =
        json!([{"row": 2, "price": ["This field is required."], "category_name": ["This field is required."]}]);
    assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors));
}

#[tokio::test]
async fn workbooks_of_spreadsheet_programs_are_read() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let date = Format::new().set_num_format("dd/mm/yy hh:mm");
    let mut workbook = Workbook::new();
    workbook.add_worksheet().set_name("Notes").unwrap().write(0, 0, "ignored").unwrap();
    for (name, first) in [("Products", 0), ("Products 2", 10)] {
        let sheet = workbook.add_worksheet().set_name(name).unwrap();
        // shared strings, headers in other cases and below the first row, other columns, empty rows
        for (column, title) in (3..).zip(["tags", "NAME", "Price", "created AT", "Category", "ID"]) {
            sheet.write(2, column, title).unwrap();
        }
        sheet.write(5, 3, "new, added").unwrap().write(5, 4, 2024 + first).unwrap();
        sheet.write(5, 5, 0.1 + 0.2).unwrap().write(5, 7, "Sport").unwrap();
        sheet.write_number_with_format(5, 6, 45_146.500_011_574, &date).unwrap();
    }
    let sheet = workbook.worksheet_from_name("Products 2").unwrap();
    sheet.write(9, 8, 1).unwrap().write(9, 5, "4.00").unwrap().write(9, 7, "Sport").unwrap();
    sheet.set_formula_result_default("").write_formula(9, 4, Formula::new("=1+1")).unwrap();
    let staff = app.create_staff("sam").await;
    let response = staff.import("", XLSX, workbook.save_to_buffer().unwrap()).await;
    // a formula has its stored result, which is empty here
    let errors = json!([{"sheet": "Products 2", "row": 10, "name": ["This field may not be blank."]}]);
    assert_eq!((response.status.as_u16(), &response.json()["errors"]), (400, &errors), "{}", response.text());
    let response = staff.import("?on_error=skip", XLSX, workbook.save_to_buffer().unwrap()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let list = staff.get("/api/products/").await.json();
    assert_eq!(product_names(&list), ["Product 1", "2024", "2034"]);
    assert_eq!((&list[1]["price"], &list[1]["created_at"]), (&exact_number("0.30"), &json!("2023-08-08T12:00:01Z")));
    assert_eq!(list[2]["tags"], json!(["added", "new"]));
}

/// Two valid rows (6 and 8) among eight invalid ones.
const INVALID_ROWS: &str = "1,Product 1,,Sport,abc,2023-08-08T12:00:00Z,\"eco, new\"\n\
                      77,Missing,,Sport,1,,\n\
                      x,Missing,,Sport,1,,\n\
                      ,,,Nowhere,-1,yesterday,\"a,,b\"\n\
                      ,Good,,Sport,1,,\n\
                      ,Bad,,Nowhere,1,,\n\
                      2,Renamed,Number 2,Sport,2.99,2023-08-08T12:00:00Z,\"eco, new\"\n\
                      2,Again,,Sport,1,,\n\
                      ,Good,,Sport,1,,,,extra\n\
                      ,Null,\0,Sport,1,,\n";

fn errors_of_invalid_rows() -> Value {
    json!([
        {"row": 2, "price": ["A valid number is required."]},
        {"row": 3, "id": ["Invalid pk \"77\" - object does not exist."]},
        {"row": 4, "id": ["A valid integer is required."]},
        {"row": 5, "name": ["This field may not be blank."],
         "price": ["Ensure this value is greater than or equal to 0."],
         "tags": {"1": ["This field may not be blank."]},
         "category_name": ["Object with name=Nowhere does not exist."],
         "created_at": ["Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z."]},
        {"row": 7, "category_name": ["Object with name=Nowhere does not exist."]},
        {"row": 9, "id": ["An earlier row has this id."]},
        {"row": 10, "non_field_errors": ["A cell is in a column without a title: column 9."]},
        {"row": 11, "description": ["Null characters are not allowed."]},
    ])
}

#[tokio::test]
async fn invalid_row_rejects_import_unless_skipped() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let before = staff.get("/api/products/").await;
    for query in ["", "?on_error=abort", "?dry_run=true", "?dry_run=false"] {
        let response = staff.import_csv(query, INVALID_ROWS).await;
        let rejected =
            json!({"created": 0, "updated": 0, "unchanged": 0, "skipped": 10, "errors": errors_of_invalid_rows()});
        assert_eq!(response.status_and_json(), (400, rejected), "{query}");
    }
    let accepted =
        json!({"created": 1, "updated": 1, "unchanged": 0, "skipped": 8, "errors": errors_of_invalid_rows()});
    assert_eq!(
        staff.import_csv("?dry_run=true&on_error=skip", INVALID_ROWS).await.status_and_json(),
        (200, accepted.clone())
    );
    assert_eq!(staff.get("/api/products/").await.header("etag"), before.header("etag"), "a dry run changes nothing");
    assert_eq!(staff.import_csv("?on_error=skip", INVALID_ROWS).await.status_and_json(), (200, accepted));
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1", "Renamed", "Good"]);
}

#[tokio::test]
async fn first_1000_errors_are_reported_and_others_counted() {
    let app = TestApp::spawn().await;
    let staff = app.create_staff("sam").await;
    let response = staff.import_csv("", &",,,,,,x\n".repeat(2500)).await.json();
    assert_eq!((response["errors"].as_array().unwrap().len(), &response["errors_omitted"]), (1000, &json!(1500)));
    assert_eq!(response["skipped"], 2500);
}
