"""Figures are added up when they are read: each counts once, however often somebody looks."""

from headrace.daemon import metrics


def test_what_was_counted_counts_once_however_often_it_is_read():
    figures = metrics.Metrics()
    figures.delivery("accepted")
    figures.request("GET", "/x", 200, 0.1)
    figures.request("GET", "/x", 200, 0.1)
    for _ in range(2):
        lines = figures.text().decode().splitlines()
        assert 'headrace_webhook_deliveries_total{result="accepted"} 1.0' in lines
        assert 'headrace_http_requests_total{method="GET",route="/x",status="200"} 2.0' in lines
    figures.delivery("accepted")
    assert 'headrace_webhook_deliveries_total{result="accepted"} 2.0' in figures.text().decode()
