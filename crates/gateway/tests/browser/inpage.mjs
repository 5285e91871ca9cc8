// Functions that run inside the page. Each one stands alone: the browser is sent its text only.

/** The elements that reach beyond the window's width, and the page itself when it scrolls sideways. */
export function overflowing() {
  const width = document.documentElement.clientWidth;
  const found = [];
  if (document.documentElement.scrollWidth > width) {
    found.push(`the page: ${document.documentElement.scrollWidth} > ${width}`);
  }
  const clipped = (element) => element && (getComputedStyle(element).clipPath !== 'none' || clipped(element.parentElement));
  for (const element of document.querySelectorAll('body *')) {
    if (clipped(element)) continue;
    const box = element.getBoundingClientRect();
    if (box.width > 1 && box.right > width + 0.5) {
      found.push(`${element.tagName} ${element.id || element.className}: ${box.right}`);
    }
  }
  return found;
}

/** The worst contrast of a visible text with what is behind it (WCAG 2.2, 1.4.3), and whether the page is dark. */
export function contrasts() {
  const rgba = (color) => {
    const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const luminance = ({ r, g, b }) => {
    const linear = [r, g, b].map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color.a === 1) return color;
    }
    return rgba('rgb(255, 255, 255)');
  };
  const ratio = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  let worst = { ratio: Infinity, text: '' };
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== '');
    const control = element.matches('input, textarea');
    const disabled = element.matches(':disabled');
    if ((!own && !control) || disabled || !element.checkVisibility() || element.closest('noscript')) continue;
    const found = ratio(rgba(getComputedStyle(element).color), behind(element));
    if (found < worst.ratio) worst = { ratio: found, text: element.textContent.slice(0, 40) || element.id };
  }
  return { worst, dark: luminance(behind(document.body)) < 0.2 };
}
