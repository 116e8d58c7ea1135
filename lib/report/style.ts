/** The style sheet: light and dark, wide and narrow, screen and paper. Colours of Okabe and Ito's kind, told apart by all readers. */

const LIGHT = `--page:#fff;--text:#1c2128;--muted:#57606a;--line:#d5dae0;--surface:#f5f7f9;--good:#116329;--bad:#a40e26;--warn:#7d4e00;
--soft:#b9c6d3;--on-colour:#000;--c1:#4a90c4;--c2:#e08a1e;--c3:#3fa98a;--c4:#c9a9dd;--c5:#e0c53c;--c6:#8fc8ea;--c7:#d9785a;--c8:#a9b1ba;
--h1:#d3e4f3;--h2:#9cc4e2;--h3:#5b9fcf;--h4:#2171b5;--h5:#08306b;--cell:#f5f7f9`;

const DARK = `--page:#12161b;--text:#e4e8ec;--muted:#9ca7b3;--line:#303943;--surface:#1a2027;--good:#6fd08c;--bad:#ff8f9a;--warn:#e6b450;
--soft:#4d5b69;--on-colour:#000;--c1:#5ea6dc;--c2:#f0a040;--c3:#4cc29f;--c4:#cdb0e0;--c5:#e6cf58;--c6:#9ad2f2;--c7:#e88b6d;--c8:#a9b1ba;
--h1:#17324d;--h2:#1f5580;--h3:#3a86bf;--h4:#7db9e6;--h5:#dff0ff;--cell:#1a2027`;

export const STYLE = `
:root{color-scheme:light;${LIGHT}}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;${DARK}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:932px;margin:0 auto;padding:40px 36px 64px}
.kind{margin:0 0 14px;display:flex;gap:12px;align-items:center;color:var(--muted);font-size:13px;letter-spacing:.02em}
.outcome{border:1px solid currentColor;border-radius:99px;padding:1px 11px;font-weight:600}
.completed,.fine{color:var(--good)}.failed,.fatal{color:var(--bad)}.uncertain,.degraded{color:var(--warn)}.cancelled{color:var(--muted)}
h1{font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:0 0 10px;text-wrap:balance;overflow-wrap:break-word}
.route{margin:0;color:var(--muted)}.route b{color:var(--text);font-weight:600}.route span{margin-left:14px}
h2{font-size:20px;line-height:1.3;font-weight:650;letter-spacing:-.01em;margin:0 0 14px}
section{margin-top:44px;padding-top:22px;border-top:1px solid var(--line)}
p{margin:0 0 14px;max-width:70ch}
.none,.note{color:var(--muted)}.note{font-size:13px;margin:6px 0 0;max-width:none}
.figures{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:1px;margin:32px 0 0;background:var(--line);border:1px solid var(--line);border-radius:8px;overflow:hidden}
.figures div{background:var(--page);padding:16px 20px}
.figures dt{color:var(--muted);font-size:13px}
.figures dd{margin:2px 0 0;font-size:25px;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.figures small{display:block;margin-top:2px;color:var(--muted);font-size:13px;font-weight:400;letter-spacing:0}
.error,.doubts,.proven{border-left:4px solid var(--warn);background:var(--surface);padding:12px 18px;margin:0 0 20px;border-radius:0 6px 6px 0;max-width:none}
.error{border-color:var(--bad);margin:26px 0 0}.proven{border-color:var(--good)}
.error p,.doubts p{margin:0}.error p+p{margin-top:6px;color:var(--muted)}.doubts ul{margin:8px 0 0;padding-left:20px}
.addresses{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12px;margin-top:8px!important}
figure{margin:0 0 32px}
figcaption{font-weight:600;margin:0 0 8px}
figure svg{display:block;width:100%;font-family:inherit}svg.wide,svg.narrow{height:auto}
svg.narrow{display:none!important}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:0 0 8px;font-size:13px;color:var(--muted)}
.legend li{display:flex;align-items:center;gap:7px}
.legend i{width:12px;height:12px;border-radius:2px;flex:none;border:1px solid var(--line)}
.legend i.diamond{width:9px;height:9px;transform:rotate(45deg);border-radius:0;margin:0 2px}
td i,th i{display:inline-block;min-width:20px;text-align:center;border-radius:3px;font-style:normal;font-size:12px;font-weight:700;line-height:18px;margin-right:6px;color:var(--on-colour)}
.soft{background:var(--soft)}
${[1, 2, 3, 4, 5, 6, 7, 8].map((n) => `i.c${n}{background:var(--c${n})}`).join('')}
${[1, 2, 3, 4, 5].map((n) => `i.h${n}{background:var(--h${n})}path.h${n}{stroke:var(--h${n})}`).join('')}
.heat{display:grid;grid-template-columns:auto minmax(0,1fr);gap:4px 10px;margin-bottom:20px;font-size:12px;color:var(--muted)}
.heat svg{background:var(--cell);border:1px solid var(--line);border-radius:3px}

.heat path{stroke-width:.86;fill:none}
.heat-rounds{display:flex;flex-direction:column;justify-content:space-between;text-align:right}
.heat-gpa{grid-column:2;display:flex;justify-content:space-between;gap:8px}
table{border-collapse:collapse;width:100%;margin:0 0 28px;font-size:13.5px;line-height:1.4}
caption{text-align:left;font-weight:600;padding:0 0 6px;font-size:15px}
th,td{padding:6px 10px 6px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);font-weight:400}
thead th{color:var(--muted);font-size:12.5px;border-bottom-color:var(--muted);vertical-align:bottom}
th:last-child,td:last-child{padding-right:0}
.n{text-align:right;white-space:nowrap}
td small{display:block;color:var(--muted);font-size:11.5px;line-height:1.45;margin-top:2px}
.stacked{font-size:12.5px}.stacked th,.stacked td{padding-right:12px}
.pair{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 40px;align-items:start}
.ledger,.sides{table-layout:fixed}.ledger th:nth-child(1){width:27%}.ledger th:nth-child(2){width:18%}.sides th:nth-child(1){width:24%}.sides th:nth-child(4){width:15%}
section>:last-child,.pair:last-child table{margin-bottom:0}
footer{margin-top:48px;padding-top:16px;border-top:1px solid var(--line);color:var(--muted);font-size:13px}
@media screen and (max-width:760px){
main{padding:24px 18px 40px}h1{font-size:24px}.route span{display:block;margin:2px 0 0}
svg.narrow{display:block!important}.wide{display:none!important}
.figures{grid-template-columns:repeat(2,minmax(0,1fr))}.figures div{padding:12px 14px}.figures dd{font-size:20px}
.sides th:nth-child(4){width:24%}.pair{grid-template-columns:minmax(0,1fr)}.pair:last-child table+table{margin-top:24px}
.stacked thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
.stacked tr{display:block;border-bottom:1px solid var(--muted);padding:6px 0}
.stacked th,.stacked td{display:flex;justify-content:space-between;gap:16px;border:0;padding:2px 0;text-align:right;white-space:normal}
.stacked th{font-weight:600}.stacked [data-of]::before{content:attr(data-of);color:var(--muted);font-weight:400}
}
@page{size:A4;margin:16mm 14mm}
@media print{
body{font-size:10.5pt}main{max-width:none;padding:0}h1{font-size:20pt}h2{font-size:14pt}
section{margin-top:22pt;padding-top:10pt}
figure,.figures,.error,.doubts,.proven,tr,.legend{break-inside:avoid}
h2,caption,figcaption,.legend,.proven,.doubts{break-after:avoid}thead{display:table-header-group}
table{font-size:9pt;margin-bottom:14pt}th,td{padding-top:3.5pt;padding-bottom:3.5pt}figure{margin-bottom:14pt}.figures div{padding:8pt 12pt}.figures dd{font-size:17pt}.stacked{font-size:7.5pt}.stacked th,.stacked td{padding:3px 6px 3px 0}
.pair table{break-inside:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
`;
